/**
 * The habits of the real service, all at once: what `serve --like-aws` orders. Each is a fault rule or
 * an option that exists by itself; here they get their numbers. Rates are the service's default
 * quotas (AWS General Reference, "Amazon EBS endpoints and quotas"), responses those of the guide's
 * "Error retries for EBS direct APIs". Times are just long enough that a client's next request comes
 * too early, so that a whole test suite can run like this: the real ones are seconds to minutes. Page
 * and block tokens change from list to list in any case (token.ts), and all stay valid until they
 * expire.
 */
import type { Operation } from "./call.js";
import type { FaultRule } from "./fault-rule.js";

/** How long a completed snapshot stays pending. */
const COMPLETION_DELAY_MS = 1_000;
/** How long some requests do not find a snapshot that was started, or completed, and how many. */
const EVENTUAL_MS = 1_000;
const EVENTUAL_SHARE = 0.5;

interface Habit {
  /** A call's latency: at least, and up to how much more, ms. */
  readonly latency: readonly [number, number];
  /** Calls a second in the whole account. */
  readonly accountRate: number;
  /** Calls a second of one snapshot, where that has a limit. */
  readonly snapshotRate?: number;
}

const HABITS: Readonly<Record<Operation, Habit>> = {
  StartSnapshot: { latency: [40, 40], accountRate: 10 },
  PutSnapshotBlock: { latency: [15, 25], accountRate: 1_000, snapshotRate: 1_000 },
  CompleteSnapshot: { latency: [40, 40], accountRate: 10 },
  ListSnapshotBlocks: { latency: [15, 25], accountRate: 50 },
  ListChangedBlocks: { latency: [15, 25], accountRate: 50 },
  GetSnapshotBlock: { latency: [10, 20], accountRate: 1_000, snapshotRate: 1_000 },
};

/** What is different in an endpoint that behaves like AWS. */
export interface LikeAws {
  readonly completionDelayMs: number;
  readonly maxPending: number;
  readonly habits: readonly FaultRule[];
}

export const LIKE_AWS: LikeAws = {
  completionDelayMs: COMPLETION_DELAY_MS,
  maxPending: 100,
  habits: [
    ...(Object.keys(HABITS) as Operation[]).flatMap(rulesOf),
    eventual("eventual-start", 1),
    eventual("eventual-complete", 2),
  ],
};

function rulesOf(operation: Operation): FaultRule[] {
  const { latency, accountRate, snapshotRate } = HABITS[operation];
  const operations = [operation];
  const [ms, jitterMs] = latency;
  const rules: FaultRule[] = [{ action: "latency", operations, ms, jitterMs }];
  if (snapshotRate !== undefined) {
    rules.push({ action: "rate", operations, perSecond: snapshotRate, perSnapshot: true });
  }
  const name = "ThrottlingException";
  rules.push({ action: "rate", operations, perSecond: accountRate, name });
  return rules;
}

function eventual(action: "eventual-start" | "eventual-complete", seed: number): FaultRule {
  return { action, ms: EVENTUAL_MS, probability: EVENTUAL_SHARE, seed };
}
