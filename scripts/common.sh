# Shared by the scripts of this folder; source it from bash.

set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
REFSAM_HOME="${REFSAM_HOME:-$HOME/.refsam}"
ENGINE_PYTHON="$REFSAM_HOME/env/bin/python"
PLUGIN_TEST_PYTHON="$REFSAM_HOME/plugin-tests/bin/python"
QGIS_PYTHON=/usr/bin/python3
export REFSAM_HOME QT_QPA_PLATFORM=offscreen
# As the plugin does for its worker: keep freed memory instead of fetching it anew for every tensor.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

say() { printf '== %s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# A QGIS profile and a Qt runtime folder of our own, gone when the script ends, with the plugin enabled.
use_private_qgis() {
    PRIVATE="$(mktemp -d)"
    trap 'rm -rf "$PRIVATE"' EXIT
    mkdir -m 700 "$PRIVATE/runtime"
    export XDG_RUNTIME_DIR="$PRIVATE/runtime" QGIS_CUSTOM_CONFIG_PATH="$PRIVATE/profile"
    export QGIS_PLUGINPATH="$PRIVATE/plugins"
    "$ENGINE_PYTHON" "$ROOT/scripts/package" --folder "$QGIS_PLUGINPATH" >/dev/null
    qgis_process plugins enable refsam_qgis >/dev/null
}

# Debian's wrapper puts QGIS_OPTS of /etc/default/qgis before the command, which qgis_process does not understand.
qgis_process() {
    if [ -x /usr/bin/qgis_process.bin ] && grep -qs '^QGIS_OPTS=' /etc/default/qgis; then
        /usr/bin/qgis_process.bin "$@"
    else
        command qgis_process "$@"
    fi
}
