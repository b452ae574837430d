/**
 * Tells a process from a later one with the same pid: by the clock tick it started at, which a
 * process keeps for life. Source: proc_pid_stat(5), field 22.
 */
import { readFileSync } from "node:fs";

/** Start time of a process in clock ticks since boot; undefined where there is no such process. */
export function startTicks(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command's name is in parentheses and may hold anything: fields count from the last one.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export function isAlive(pid: number, ticks: string | undefined): boolean {
  return ticks !== undefined && startTicks(pid) === ticks;
}
