#!/bin/sh
# Puts this backup of a PostgreSQL database into a server, with psql and pg_restore of the server's version or newer.
# It makes the database anew, under the name that it had, and refuses where one of that name exists.
set -eu
export LC_ALL=C

usage() {
    cat >&2 <<'EOF'
usage: sh restore.sh [--globals] [--no-owner] [--jobs N] postgres://ROLE@HOST/postgres

  the URL names any database that exists on the server (not the one to be made), and a role that may create others
  --globals    first runs globals.sql, which makes roles and tablespaces; refuses where one of its roles exists, because it
               would get back the rights and the password that it had (the server's first role does)
  --no-owner   everything will belong to the role in the URL, and nothing is granted to others
  --jobs N     how many indexes are built at once (2)
EOF
    exit 2
}
die() {
    echo "restore.sh: $*" >&2
    exit 1
}
say() {
    echo "restore.sh: $*" >&2
}

globals=no
owner=''
jobs=2
server=''
while [ $# -gt 0 ]; do
    case $1 in
    --globals) globals=yes ;;
    --no-owner) owner='--no-owner --no-privileges' ;;
    --jobs)
        [ $# -gt 1 ] || usage
        shift
        jobs=$1
        ;;
    postgres://*/* | postgresql://*/*) [ -z "$server" ] || usage; server=$1 ;;
    *) usage ;;
    esac
    shift
done
[ -n "$server" ] || usage
for tool in psql pg_restore; do
    command -v "$tool" >/dev/null || die "$tool is not installed: apt-get install postgresql-client"
done
cd "$(dirname "$0")"
for part in globals.sql schema.dump tables.json sequences.sql; do
    [ -f "$part" ] || die "$part is missing: unpack the whole backup, then run the restore.sh that lies in it"
done

# The same URL, with the database's own name.
case $server in
*\?*) parameters="?${server#*\?}" ;;
*) parameters='' ;;
esac
address=${server%%\?*}
target="${address%/*}/"'@DATABASE_IN_URL@'"$parameters"

# As the rows were written; and nothing that the database sets for itself may stand in the way.
export PGCLIENTENCODING=UTF8
export PGOPTIONS="-c datestyle=ISO -c intervalstyle=postgres -c lc_monetary=C -c xmloption=content \
-c standard_conforming_strings=on -c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0 \
-c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off -c row_security=off ${PGOPTIONS:-}"

# Entries of schema.dump that need a table which the backup left out.
unrestorable='@UNRESTORABLE@'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

sql() {
    psql -X -q -v ON_ERROR_STOP=1 -o /dev/null -d "$target" "$@"
}

if [ "$globals" = yes ]; then
    # The server's first role has the number 10 everywhere.
    psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$server" -o "$work/roles" -c \
        "SELECT 'CREATE ROLE ' || pg_catalog.quote_ident(rolname) || ';' FROM pg_catalog.pg_roles WHERE oid <> 10" ||
        die "the server cannot be asked for its roles"
    if grep -F -x -f "$work/roles" globals.sql >"$work/existing"; then
        die "the server has roles that globals.sql would change to what they were: $(sed 's|^CREATE ROLE ||; s|;$||' <"$work/existing" | tr '\n' ' ')
leave --globals out if none is missing, or else run the statements for the missing ones by hand"
    fi
    say "roles and tablespaces (an error that the server's first role exists is nothing to worry about)"
    psql -X -q -d "$server" -f globals.sql
fi

pg_restore --list --create --file="$work/all" schema.dump || die "schema.dump cannot be read"
grep -v -E "^(${unrestorable:-none});" "$work/all" >"$work/entries"
schema() {
    list=$1
    shift
    # shellcheck disable=SC2086
    pg_restore --exit-on-error $owner --use-list="$work/$list" "$@" schema.dump
}

say "database, types, tables, functions"
version=$(psql -X -q -A -t -d "$server" -c "SHOW server_version_num") || die "the server cannot be asked for its version"
failed='the schema could not be created: if the database exists, drop or rename it; if a role is missing, add --globals or --no-owner'
if [ "$version" -ge 150000 ]; then
    schema entries --create --section=pre-data -d "$server" || die "$failed"
else
    # Newer tools name the provider of the database's locale, which servers before 15 do not know.
    grep -E "^[0-9]+; [0-9]+ [0-9]+ (DATABASE|DATABASE PROPERTIES|ACL - DATABASE|COMMENT - DATABASE|SECURITY LABEL - DATABASE) " \
        "$work/entries" >"$work/database"
    schema database --create --section=pre-data --file="$work/database.sql" || die "schema.dump cannot be read"
    sed '/^CREATE DATABASE /s/ LOCALE_PROVIDER = [a-z]*//' "$work/database.sql" >"$work/older.sql"
    psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d "$server" -f "$work/older.sql" || die "$failed"
    schema entries --section=pre-data -d "$target" || die "$failed"
fi

if [ -f large-objects.sql ]; then
    sql -f large-objects.sql || die "the large objects could not be made"
    [ -n "$owner" ] || sql -f large-objects-owners.sql || die "the large objects could not be given to their owners"
fi

for folder in data/*/; do
    [ -f "${folder}copy.sql" ] || continue
    statement=$(cat "${folder}copy.sql")
    say "$statement"
    rm -f "$work/whole"
    {
        find "$folder" -name '*.copy' >"$work/list" && sort "$work/list" >"$work/sorted" &&
            xargs cat <"$work/sorted" && : >"$work/whole"
    } | sql -c "$statement" || die "the rows in $folder could not be loaded"
    [ -f "$work/whole" ] || die "a file in $folder cannot be read"
done

if [ -d large-objects ]; then
    say "large objects"
    for file in large-objects/*.sql; do
        sql -f "$file" || die "$file could not be loaded"
    done
fi

say "sequences"
sql -f sequences.sql || die "sequences.sql could not be loaded"

# What reads rows goes several at a time, each kind among its like. What else changes partitions and their indexes locks
# more of their family than pg_restore knows: two of them at a time can wait for each other until the server ends one.
keys='2606 [0-9]+ CONSTRAINT|1259 [0-9]+ INDEX'
attachments='0 0 INDEX ATTACH'
foreign_keys='2606 [0-9]+ FK CONSTRAINT'
filled='[0-9]+ [0-9]+ MATERIALIZED VIEW DATA'
watching='[0-9]+ [0-9]+ (EVENT TRIGGER|COMMENT - EVENT TRIGGER)'
post_data() {
    say "$1"
    [ -s "$work/step" ] || return 0
    schema step --section=post-data --jobs="$2" -d "$target" || die "what stands after the data could not be created ($1)"
}
only() {
    grep -E "^[0-9]+; ($1) " "$work/entries" >"$work/step" || :
}
only "$keys"
post_data "keys and indexes" "$jobs"
only "$attachments"
post_data "indexes of partitions" 1
only "$foreign_keys"
post_data "foreign keys" "$jobs"
grep -v -E "^[0-9]+; ($keys|$attachments|$foreign_keys|$filled|$watching) " "$work/entries" >"$work/step" || :
post_data "constraints, triggers, policies" 1
only "$filled"
post_data "materialized views" "$jobs"
only "$watching"
post_data "event triggers" 1

say "statistics for the planner"
sql -c ANALYZE
say "done: $target"
