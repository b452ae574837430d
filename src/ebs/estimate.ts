/**
 * What a number of calls comes to before they are made: bytes, dollars, and the time that the service's
 * quotas allow at best. Where a part of the calls depends on what is not known without paying for it,
 * an estimate has a lower and an upper end.
 */
import { BLOCK_SIZE } from "../common/sizes.js";
import { costOf, OPERATIONS, type Operation } from "./meter.js";

/**
 * Requests a second, default values in most regions: of one snapshot and of the account for get and
 * put, of the account for the others. Source: AWS General Reference, "Amazon EBS endpoints and quotas",
 * EBS direct APIs.
 */
const QUOTA_PER_SECOND: Readonly<Record<Operation, number>> = {
  ListSnapshotBlocks: 50,
  ListChangedBlocks: 50,
  GetSnapshotBlock: 1_000,
  StartSnapshot: 10,
  PutSnapshotBlock: 1_000,
  CompleteSnapshot: 10,
};

export type Calls = Readonly<Partial<Record<Operation, number>>>;

export interface CallRange {
  readonly atLeast: Calls;
  readonly atMost: Calls;
}

export interface Estimate {
  readonly calls: Readonly<Record<Operation, number>>;
  readonly requests: number;
  readonly bytesFetched: number;
  readonly bytesPut: number;
  /** By list prices; data transfer not included. */
  readonly costUsd: number;
  /** At the service's quotas, all kinds of calls side by side: no line and no machine is faster. */
  readonly seconds: number;
}

export function estimateOf(calls: Calls): Estimate {
  const all = Object.fromEntries(OPERATIONS.map((o) => [o, calls[o] ?? 0])) as Estimate["calls"];
  return {
    calls: all,
    requests: OPERATIONS.reduce((sum, o) => sum + all[o], 0),
    bytesFetched: all.GetSnapshotBlock * BLOCK_SIZE,
    bytesPut: all.PutSnapshotBlock * BLOCK_SIZE,
    costUsd: costOf(all),
    seconds: Math.ceil(Math.max(...OPERATIONS.map((o) => all[o] / QUOTA_PER_SECOND[o]))),
  };
}

/** Both ends of several ranges together. */
export function sumOfRanges(ranges: readonly CallRange[]): CallRange {
  const sum = (end: keyof CallRange): Calls =>
    Object.fromEntries(
      OPERATIONS.map((o) => [o, ranges.reduce((total, range) => total + (range[end][o] ?? 0), 0)]),
    );
  return { atLeast: sum("atLeast"), atMost: sum("atMost") };
}

/** For sentences: the quotas that `seconds` is counted by. */
export const QUOTA_WORDS = "1000 gets, 1000 puts and 50 lists a second";
