#!/bin/sh
# A whole cronflowd worker: worker.sh [HOST [PORT [NAME [TOKEN-FILE]]]]. It runs jobs of type shell,
# one at a time, and is meant to be read beside protocol.md, where the worker port is told. It leaves
# out what a simple worker may: cwd=, env.K=, KILL, output while the job runs and byte for byte, and
# keeping a report over a lost connection (it ends then, so start it in a loop). NC=ncat takes another netcat.
name=${3:-$(hostname)} tab=$(printf '\t') nc='' beater='' leaving='' owed=''
dir=$(mktemp -d) && mkfifo "$dir/say" "$dir/hear" && exec 3<>"$dir/say" || exit 73
beat() { while sleep "${BEAT_S:-5}" >&2 3>&-; do echo BEAT; done >&3 4<&- & beater=$!; }
# Two writers at a time would mix their lines. TERM may be lost on a subshell that has just begun.
hush() { kill -9 "$beater" && wait "$beater"; } 2>/dev/null
trap 'kill -9 $nc $beater 2>/dev/null; rm -r "$dir"' EXIT
trap 'leaving=1; echo BYE >&3' TERM INT # the job that runs is finished and reported
${NC:-nc} "${1:-127.0.0.1}" "${2:-5051}" <"$dir/say" >"$dir/hear" 3>&- & nc=$!
exec 4<"$dir/hear" # from here on fd 3 is what we say, and fd 4 what the daemon says

echo "HELLO name=$name slots=1 can=shell${4:+ token=$(sed -n '/^[^#]/{p;q;}' "$4")}" >&3
read -r answer <&4
case $answer in OK*) beat ;; *) echo "worker.sh: ${answer:-no answer}" >&2; exit 77 ;; esac
while IFS= read -r line <&4; do
    case $line in
    ACK*) owed='' ;; # the report is on the daemon's disk; OK only answers a BEAT
    RUN*)
        rest=${line#RUN } && run=${rest%% *} && rest=${rest#* } && attempt=${rest%% *}
        # The command is all that follows the first " :" outside double quotes.
        command=$(printf '%s\n' "$line" |
            LC_ALL=C sed -E 's/^("([^"\\]|\\.)*"|[^" ]| +[^" :]| +"([^"\\]|\\.)*")* +://')
        echo "STARTED $run $attempt" >&3
        CRONFLOW_RUN_ID=$run CRONFLOW_ATTEMPT=$attempt \
            /bin/sh -c "$command" </dev/null >"$dir/out" 2>&1 3>&- 4<&-
        code=$? owed=1
        hush
        # Sent are lines of bounded length, in UTF-8, with backslash and tab escaped, without other
        # control characters; grep ends a last line that has no end.
        tr -d '\000-\010\013-\037\177' <"$dir/out" | fold -b -w 8000 | iconv -c -f UTF-8 -t UTF-8 |
            LC_ALL=C sed "s/\\\\/\\\\\\\\/g; s/$tab/\\\\t/g; s/^/OUT $run 1 /" | LC_ALL=C grep '' >&3
        echo "DONE $run $attempt $code" >&3
        beat
        ;;
    esac
    [ "$leaving" ] && [ -z "$owed" ] && exit
done
