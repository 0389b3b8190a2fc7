#!/bin/sh
# with-secrets FROM TO COMMAND...: copies secrets that an orchestrator mounted, and that somebody else owns, into a
# folder of this user alone, then becomes COMMAND. fedgen refuses keys that others may read.
set -eu
umask 077
from=$1
to=$2
shift 2
mkdir -p "$to"
chmod 0700 "$to"
for file in "$from"/*; do
    if [ -f "$file" ]; then
        install -m 0600 "$file" "$to/${file##*/}"
    fi
done
exec "$@"
