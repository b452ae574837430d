import { formatSize } from "../common/sizes.js";
import type { BudgetLimits } from "../ebs/budget.js";
import { formatUsd } from "../ebs/meter.js";
import { type StatusEntry, statusOfMounts } from "../mount/mount-status.js";
import { openStateFolder } from "../mount/state-folder.js";
import { listFinished } from "../overlay/finished-sessions.js";
import { finishedToJson, finishedToText } from "./finished-text.js";

/** Sessions that ended are told of for so long, ms, and so many of them; `sessions --all` has more. */
const LATELY_MS = 24 * 3600_000;
const MOST_FINISHED = 10;

export async function printStatus(json: boolean, stateDir?: string): Promise<void> {
  const folder = openStateFolder(stateDir);
  const entries = await statusOfMounts(folder);
  const finished = listFinished(folder.path)
    .filter(({ updatedAt }) => Date.now() - updatedAt < LATELY_MS)
    .slice(-MOST_FINISHED);
  if (json) {
    const told = { mounts: entries.map(toJson), finished: finished.map(finishedToJson) };
    process.stdout.write(`${JSON.stringify(told, null, 2)}\n`);
    return;
  }
  const mounts = entries.length === 0 ? ["Nothing is mounted."] : entries.map(toText);
  process.stdout.write(`${[...mounts, ...finished.map(finishedToText)].join("\n\n")}\n`);
}

function toJson({ record, ...entry }: StatusEntry): object {
  if (record === undefined) return entry;
  const { pid, snapshots, driver, mode, session, logFile, startedAt } = record;
  return { ...entry, pid, snapshots, driver, mode, session, logFile, startedAt };
}

function toText(entry: StatusEntry): string {
  const { record, status } = entry;
  const rows: [string, string][] = [];
  if (status !== undefined) {
    for (const { name, size, written } of status.volumes) {
      const known = written === undefined ? "" : `, ${formatSize(written)} written`;
      rows.push([name, `${formatSize(size)}${known}`]);
    }
    const { service } = status;
    const reads = status.hits + status.misses;
    const share = reads === 0 ? "" : ` (${Math.round((100 * status.hits) / reads)} % hits)`;
    rows.push([
      "cached",
      `${formatSize(status.cached)} of ${formatSize(status.cacheSize)}${share}`,
    ]);
    if (status.disk !== undefined) {
      rows.push(["cache folder", `${status.disk.hits} blocks read, ${status.disk.kept} kept`]);
    }
    rows.push(["fetched", formatSize(service.bytesFetched)]);
    if (status.dirty !== undefined) rows.push(["changed", formatSize(status.dirty)]);
    if (status.commit !== undefined) {
      const { blocksDone, blocksTotal } = status.commit;
      rows.push(["committing", `${blocksDone} of ${blocksTotal} blocks`]);
    }
    if (status.becoming !== undefined) rows.push(["becoming", status.becoming]);
    rows.push([
      "API calls",
      `${service.calls} (${service.throttles} throttled, ${service.retries} retried), about ${formatUsd(service.estimatedCostUsd)}`,
    ]);
    const limits = limitsToText(status.limits);
    if (limits !== undefined) rows.push(["at most", limits]);
    rows.push(["memory", formatSize(status.memory)]);
  }
  if (record !== undefined) {
    rows.push(["process", `${record.pid}, ${record.driver} driver, since ${record.startedAt}`]);
    if (record.session !== undefined) rows.push(["session", record.session]);
    if (record.logFile !== undefined) rows.push(["log", record.logFile]);
  }
  if (entry.advice !== undefined) rows.push(["to do", entry.advice]);
  const width = Math.max(...rows.map(([label]) => label.length));
  const mode = record === undefined ? "" : ` (${record.mode})`;
  const head = `${entry.mountPoint}  ${entry.source}  ${entry.state}${mode}`;
  return [head, ...rows.map(([label, text]) => `  ${label.padEnd(width)}  ${text}`)].join("\n");
}

/** A mount of an older version tells none. */
function limitsToText({ maxRequests, maxCostUsd }: BudgetLimits = {}): string | undefined {
  const limits = [
    ...(maxCostUsd === undefined ? [] : [formatUsd(maxCostUsd)]),
    ...(maxRequests === undefined ? [] : [`${maxRequests} requests`]),
  ];
  return limits.length === 0 ? undefined : limits.join(", ");
}
