"""The shim round every process: it records the exit code and holds the time limit with nobody watching.

Five lines of POSIX shell would do for the code alone. What else it does, and why:

- A background job's standard input is /dev/null; some shells see to that before they look at ``<&0``, so it is passed on
  under another number.
- The watchdog must hold none of the process's streams, or readers would wait for it; nor may the shim say there that its
  job was terminated.
- A clock that is stopped (the process stands still, and may not lose its time by that) is a file; how long it was, so many
  seconds in another one. The watchdog looks when its time is over, and not before: it costs nothing while nobody stops clocks.
  What it waits for a clock to go on is part of that time, and not waited for once more.
- What holds for the program alone is set by the process that becomes it: the shim and its watchdog are outside of its control
  group, so that neither its memory nor the number of its processes is theirs. What cannot be set is no reason to start without.
  Nothing is written but what control groups are joined by: any other file, given by mistake, would be emptied.
- A guard looks on from outside, too, and is in the process group only to end with the rest of it.
- ``trap :`` and not ``trap ''``: an ignored signal stays ignored in what is started, a caught one does not. The watchdog
  ignores what asks to end: it is there for those who do not listen, and only ever ended by force.
- A process that waits for its task is given its limit with that, in a file: it is looked for every other second.
- The process's PATH may lead anywhere; the shim's own tools are looked for where the system has them.
- ``wait`` returns when a signal was caught, with the child still there: ask again. Or with a child that ended just then, whose
  code the shell knows and has not said: ask once more (127 is a shell's word for a child that it has told of already).
- At the end everything left in the process group is ended, the shim with it: nothing outlives its agent.
"""

SHIM = """
folder=$1; limit=$2; groups=$3; files=$4; blocks=$5; guard=$6; shift 6
tools=/usr/bin:/bin${PATH:+:$PATH}
become() {
  set -f
  IFS='
'
  for group in $groups; do
    case $group in */cgroup.procs) echo 0 > "$group" || exit 125 ;; *) exit 125 ;; esac
  done
  [ -z "$blocks" ] || ulimit -f "$blocks" || exit 125
  case $files in
    '') ;;
    S*) ulimit -S -n "${files#S}" || exit 125 ;;
    *) ulimit -n "$files" || exit 125 ;;
  esac
  exec "$@"
}
trap : TERM INT HUP
exec 3<&0
become "$@" <&3 3<&- &
child=$!
exec </dev/null 2>/dev/null 3<&-
[ -z "$guard" ] || eval "$guard $child" >/dev/null &
(
  exec >/dev/null
  trap '' TERM INT HUP
  if [ "$limit" = later ]; then
    until [ -s "$folder/limit" ]; do PATH=$tools sleep 2; done
    read -r limit < "$folder/limit"
  fi
  PATH=$tools sleep "$limit"
  slept=0
  while :; do
    while [ -e "$folder/clock-stopped" ]; do PATH=$tools sleep 1; slept=$((slept + 1)); done
    more=0
    [ ! -e "$folder/clock-more" ] || read -r more < "$folder/clock-more"
    [ "$more" -gt "$slept" ] || break
    PATH=$tools sleep $((more - slept))
    slept=$more
  done
  : > "$folder/timed-out"
  kill -TERM 0
  PATH=$tools sleep 5
  kill -KILL 0
) &
while :; do
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || break
done
wait $child
again=$?
[ $again = 127 ] || code=$again
printf '%s' "$code" > "$folder/exit.tmp" && PATH=$tools mv "$folder/exit.tmp" "$folder/exit"
exec >/dev/null
kill -KILL 0
"""
