import { formatSize } from "../common/sizes.js";
import { type StatusEntry, statusOfMounts } from "../mount/mount-status.js";
import { openStateFolder } from "../mount/state-folder.js";

export async function printStatus(json: boolean, stateDir?: string): Promise<void> {
  const entries = await statusOfMounts(openStateFolder(stateDir));
  if (json) {
    process.stdout.write(`${JSON.stringify({ mounts: entries.map(toJson) }, null, 2)}\n`);
  } else if (entries.length === 0) {
    process.stdout.write("Nothing is mounted.\n");
  } else {
    process.stdout.write(`${entries.map(toText).join("\n\n")}\n`);
  }
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
    rows.push([
      "API calls",
      `${service.calls} (${service.throttles} throttled, ${service.retries} retried), about $${service.estimatedCostUsd.toFixed(4)}`,
    ]);
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
