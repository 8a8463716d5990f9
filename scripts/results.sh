#!/usr/bin/env bash
# Remakes results/embedded and, where ../shared is, results/imagenet-sample. Run through `make results`.
set -euo pipefail
qtable=.venv/bin/qtable
keep() { # keep RUN FOLDER: the figures and the picture of a run, without photos or weights
    mkdir -p "$2"
    cp "$1/summary.json" "$1/front.png" "$2/"
}
$qtable optimize --max-drop 2% --out runs/results/embedded
keep runs/results/embedded results/embedded
$qtable optimize --method sorted-random --budget 100 --out runs/results/embedded-sorted
keep runs/results/embedded-sorted results/embedded/sorted-random
if [ ! -d ../shared/data/imagenet ]; then
    echo "../shared is not there: results/imagenet-sample is left as it is"
    exec .venv/bin/python scripts/index_results.py
fi
for network in mobilenet_v1_050_160 mobilenet_v1_075_192; do
    for subsampling in 4:2:0 4:4:4; do
        name=$network-${subsampling//:/}
        $qtable optimize --data ../shared/data/imagenet --model ../shared/models/classifiers.py:$network \
            --metric agreement --subsampling $subsampling --out runs/results/$name
        keep runs/results/$name results/imagenet-sample/$name
    done
done
.venv/bin/python scripts/index_results.py
