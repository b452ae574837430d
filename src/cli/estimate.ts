/**
 * `--estimate`: says what a command would cost, makes nothing, and ends with status 0. Only list calls
 * are made for it; what they have cost is said too.
 */
import type { Command } from "commander";
import { formatSize } from "../common/sizes.js";
import { type CallRange, type Estimate, estimateOf, QUOTA_WORDS } from "../ebs/estimate.js";
import { formatUsd, type Meter } from "../ebs/meter.js";
import { UsageFailure } from "./errors.js";
import { printResult } from "./result.js";

export interface EstimateOptions {
  readonly estimate?: boolean;
  readonly json?: boolean;
}

/** @param what it says, in short. */
export function estimateOptions(command: Command, what: string): Command {
  return command
    .option("--estimate", `say what ${what} costs (calls, bytes, dollars, time), and make nothing`)
    .option("--json", "with --estimate: as JSON, for programs");
}

/** @throws UsageFailure where --json would not be heeded. */
export function checkEstimate({ estimate, json }: EstimateOptions): void {
  if (json && !estimate) throw new UsageFailure("--json goes with --estimate.");
}

/** @param what the estimate is of, such as `export of snap-0123`. @param meter of the estimate itself. */
export function printEstimate(
  what: string,
  range: CallRange,
  meter: Meter,
  { json }: EstimateOptions,
): void {
  const [least, most] = [estimateOf(range.atLeast), estimateOf(range.atMost)];
  const { requests, estimatedCostUsd } = meter.read();
  const lines = json
    ? toJson({ what, atLeast: least, atMost: most, spent: { requests, costUsd: estimatedCostUsd } })
    : [
        ...toText(what, least, most),
        `This estimate itself took ${requests} requests, about ${formatUsd(estimatedCostUsd)}.`,
      ];
  printResult(lines, `${what} costs about ${formatUsd(most.costUsd)} at most`);
}

function toJson(estimate: object): string[] {
  return [JSON.stringify(estimate, undefined, 2)];
}

function toText(what: string, least: Estimate, most: Estimate): string[] {
  const between = (of: (estimate: Estimate) => number, text: (value: number) => string) => {
    const [from, to] = [text(of(least)), text(of(most))];
    return from === to ? to : `${from} to ${to}`;
  };
  const rows: [string, string][] = [];
  const lists = ({ calls }: Estimate) => calls.ListSnapshotBlocks + calls.ListChangedBlocks;
  rows.push(["list calls", between(lists, String)]);
  if (most.bytesFetched > 0) {
    const gets = between(({ calls }) => calls.GetSnapshotBlock, String);
    rows.push(["get calls", `${gets} (${between((e) => e.bytesFetched, formatSize)})`]);
  }
  if (most.bytesPut > 0) {
    const puts = between(({ calls }) => calls.PutSnapshotBlock, String);
    rows.push(["put calls", `${puts} (${between((e) => e.bytesPut, formatSize)})`]);
  }
  rows.push(["cost", `about ${between((e) => e.costUsd, formatUsd)}, data transfer not included`]);
  rows.push([
    "time",
    `at least ${between((e) => e.seconds, formatSeconds)}, at the service's quota of ${QUOTA_WORDS}`,
  ]);
  const width = Math.max(...rows.map(([label]) => label.length));
  return [what, ...rows.map(([label, text]) => `  ${label.padEnd(width)}  ${text}`)];
}

function formatSeconds(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 2 * 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
