#!/usr/bin/env bash
# Installs what the system can give beside Python's wheels; qtable works without, on slower or narrower routes:
#   python3-venv          Debian's own Python makes virtual environments with it
#   libturbojpeg0         PyTurboJPEG decodes through it (else simplejpeg does)
#   libjpeg-turbo-progs   cjpeg, which tests hand exported tables to (else those tests skip)
#   imagemagick           likewise
# With the argument "browser", too:
#   chromium, chromium-driver   tests look at the report in it (else those tests skip)
set -u
missing=()
python3 -c "import ensurepip" 2>/dev/null || missing+=(python3-venv)
ldconfig -p 2>/dev/null | grep -q libturbojpeg || missing+=(libturbojpeg0)
command -v cjpeg >/dev/null || missing+=(libjpeg-turbo-progs)
{ magick -version || /usr/bin/convert -version; } 2>/dev/null | grep -q ImageMagick || missing+=(imagemagick)

install() {
    [ $# -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "optional system packages are missing: $* (apt-get install, as root)"
        return 0
    fi
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } \
        >/dev/null 2>&1 ||
        echo "could not install $*; continuing without"
}

install "${missing[@]}"
if [ "${1:-}" = browser ] && ! command -v chromedriver >/dev/null; then
    install chromium chromium-driver
fi
exit 0
