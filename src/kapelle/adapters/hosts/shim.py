"""The shim round every process: it records the exit code and holds the time limit with nobody watching.

Five lines of POSIX shell would do for the code alone. What else it does, and why:

- A background job's standard input is /dev/null; some shells see to that before they look at ``<&0``, so it is passed on
  under another number.
- The watchdog must hold none of the process's streams, or readers would wait for it.
- ``trap :`` and not ``trap ''``: an ignored signal stays ignored in what is started, a caught one does not.
- ``wait`` returns when a signal was caught, with the child still there: ask again.
- At the end everything left in the process group is ended, the shim with it: nothing outlives its agent.
"""

SHIM = """
folder=$1; limit=$2; shift 2
trap : TERM INT HUP
exec 3<&0
"$@" <&3 3<&- &
child=$!
exec </dev/null 3<&-
(
  exec >/dev/null 2>&1
  trap - TERM INT HUP
  sleep "$limit" &
  nap=$!
  trap 'kill $nap; exit' TERM
  wait $nap
  : > "$folder/timed-out"
  kill -TERM 0
  trap : TERM
  sleep 5
  kill -KILL 0
) &
while :; do
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || break
done
printf '%s' "$code" > "$folder/exit.tmp" && mv "$folder/exit.tmp" "$folder/exit"
exec >/dev/null 2>&1
kill -KILL 0
"""
