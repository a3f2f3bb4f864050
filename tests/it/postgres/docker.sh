#!/bin/sh
# Stands in for docker where there is none: it takes docker's arguments, and runs this machine's own PostgreSQL 15 as docker
# runs an image's. As with docker, what runs does not end with the program that was called; it is ended by its name.
set -eu
here=$(dirname "$0")
state=$here/containers
mkdir -p "$state"
echo "$*" >> "$here/said"
case $1 in
image)
    [ "$5" = postgres:15 ] || { echo "Error: No such image: $5" >&2; exit 1; }
    echo sha256:feed
    exit ;;
ps)
    ls "$state"
    exit ;;
inspect)
    printf '/%s %s\n' "$4" "$(cat "$state/$4/label")"
    exit ;;
rm)
    for name; do
        [ -e "$state/$name/pid" ] || continue
        # The first process of a namespace takes all others along.
        ps -o pid= --ppid "$(cat "$state/$name/pid")" | xargs -r kill -KILL
        rm -rf "${state:?}/$name"
    done
    exit ;;
esac
shift
name=unnamed label='' user=65534:65534 dir=/ entry=''
while :; do
    case $1 in
    --rm | --read-only) shift ; continue ;;
    --name) name=$2 ;;
    --label) label=${2#lifeboat.drill=} ;;
    --user) user=$2 ;;
    --workdir) dir=$2 ;;
    --entrypoint) entry=$2 ;;
    --*) ;;
    *) break ;;
    esac
    shift 2
done
[ "$1" = sha256:feed ] || { echo "Unable to find image '$1' locally" >&2; exit 125; }
shift
mkdir "$state/$name"
echo "$label" > "$state/$name/label"
cd "$dir"
setsid unshare --net --ipc --pid --fork setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups --no-new-privs \
    --bounding-set=-all env -i PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin TZ=UTC "$entry" "$@" &
echo $! > "$state/$name/pid"
code=0
wait $! || code=$?
rm -rf "${state:?}/$name"
exit $code
