/**
 * Processor time, user and system together, as the kernel accounts it in /proc (proc(5): fields 14 to 17
 * of a stat file). A child's is exact once it has been waited for; a process that is no child of the
 * bench, such as a mount, is read while it lives, so its last few milliseconds are missing.
 */
import { readdirSync, readFileSync } from "node:fs";

/** USER_HZ, the unit of these fields: 100 on every machine that Node.js runs on. */
const TICKS_PER_SECOND = 100;
const PROCESS_INTERVAL_MS = 20;
/** Rarely, because a peer may have a hundred threads and each is a file to read. */
const THREADS_INTERVAL_MS = 250;

/** @returns [user, system, children's user, children's system] in seconds. */
function timesOf(statFile) {
  const stat = readFileSync(statFile, "utf8");
  // The name in parentheses may hold anything; the first field after it is the third.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields.slice(11, 15).map((ticks) => Number(ticks) / TICKS_PER_SECOND);
}

/** Seconds of a process, with those of its children that it has waited for. */
export function processorTime(pid) {
  return timesOf(`/proc/${pid}/stat`).reduce((sum, time) => sum + time, 0);
}

/** Seconds of all children of this process that have ended. */
export function endedChildrenTime() {
  const [, , user, system] = timesOf("/proc/self/stat");
  return user + system;
}

function threadTimes(pid, times) {
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      const [user, system] = timesOf(`/proc/${pid}/task/${thread}/stat`);
      times.set(thread, user + system);
    } catch {
      // The thread has ended since it was listed: what was seen of it before counts.
    }
  }
  return times;
}

/**
 * Watches a process from now on, until `stop` or until it is gone.
 * @returns stop, which gives { processorSeconds, threadSeconds (busiest first) } since the start.
 */
export function watchProcess(pid) {
  const startTime = processorTime(pid);
  const startThreads = threadTimes(pid, new Map());
  let time = startTime;
  const threads = new Map(startThreads);
  const sample = (read) => () => {
    try {
      read();
    } catch {
      // The process is gone.
    }
  };
  const sampleProcess = sample(() => {
    time = Math.max(time, processorTime(pid));
  });
  const sampleThreads = sample(() => threadTimes(pid, threads));
  const timers = [
    setInterval(sampleProcess, PROCESS_INTERVAL_MS),
    setInterval(sampleThreads, THREADS_INTERVAL_MS),
  ];
  return {
    stop() {
      for (const timer of timers) clearInterval(timer);
      sampleProcess();
      sampleThreads();
      const threadSeconds = [...threads]
        .map(([thread, seconds]) => seconds - (startThreads.get(thread) ?? 0))
        .sort((a, b) => b - a);
      return { processorSeconds: time - startTime, threadSeconds };
    },
  };
}
