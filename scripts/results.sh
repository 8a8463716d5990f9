#!/usr/bin/env bash
# Remakes what results/README.md lists but the benchmarks; what needs ../shared only where that is. `make results`.
set -euo pipefail
qtable=.venv/bin/qtable
keep() { # keep RUN FOLDER NAME...: figures and pictures of a run, without photos or weights
    mkdir -p "$2"
    for name in "${@:3}"; do cp "$1/$name" "$2/"; done
}
contest() { # contest NAME OPTION...: a contest of search methods on the embedded task
    $qtable compare "${@:2}" --out "runs/results/$1"
    keep "runs/results/$1" "results/embedded/$1" compare.json compare.png
}
$qtable optimize --max-drop 2% --out runs/results/embedded
keep runs/results/embedded results/embedded summary.json front.png
contest contest-cold --budget 400 --seeds 3 --thin 4 --methods random,sorted-random,genetic,cma-es,mcmc,bayesian,notebook-ga-product,notebook-ga-curve,notebook-mcmc-step,notebook-mcmc-average
contest contest-others --budget 200 --seeds 3 --thin 4 --methods genetic,genetic-spea2,annealing,bayesian-gp,quasi-random,differential-evolution,particle-swarm,firefly
contest contest-published --budget 33 --seeds 1 --thin 2 --methods closed-form,rd-opt,rd-opt-per-frequency,deepn-jpeg,grace,opts,optd,mozjpeg-1,mozjpeg-2,mozjpeg-3,mozjpeg-4,mozjpeg-5,mozjpeg-6,mozjpeg-7,mozjpeg-8
contest contest-racing --budget 200 --seeds 3 --thin 2 --methods genetic,genetic+racing
contest contest-closed --budget 33 --seeds 1 --methods closed-form
contest contest-warm --budget 100 --seeds 2 --methods genetic@closed-form,cma-es@closed-form
.venv/bin/python -m benchmarks.joint
if [ -d ../shared/data/imagenet ]; then
    .venv/bin/python -m benchmarks.tables
    for name in task_aware fine_tune samples transfer files hymenoptera trellis; do .venv/bin/python -m benchmarks.$name; done
    $qtable compare --data ../shared/data/imagenet --model ../shared/models/classifiers.py:mobilenet_v1_050_160 \
        --metric agreement --thin 2 --budget 100 --seeds 3 --out runs/results/imagenet-contest \
        --methods closed-form,sorted-random,genetic,mcmc,genetic@closed-form,cma-es@closed-form
    keep runs/results/imagenet-contest results/imagenet-sample/contest compare.json compare.png
else
    echo "../shared is not there: what is made from its photos is left as it is"
fi
.venv/bin/python scripts/index_results.py
