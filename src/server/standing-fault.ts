/**
 * A fault rule in force: which calls it is about, and whether it strikes one of them. All counting is
 * here: calls that matched and were hit, the rule's own random sequence, the allowance of a rate, and
 * how many requests of a snapshot have been sent away as too early.
 */
import { LRUCache } from "lru-cache";
import type { Route } from "./call.js";
import type { FaultRule } from "./fault-rule.js";
import { canStrike } from "./fault-table.js";
import type { SnapshotRecord } from "./snapshot-record.js";

/** What a rule may want to know of a snapshot; undefined where there is none. */
export type SnapshotLookUp = (
  snapshotId: string,
) => Pick<SnapshotRecord, "status" | "startedAt" | "completesAt"> | undefined;

/** Snapshots that a rule keeps a count for; the least recently used ones are forgotten. */
const MAX_SNAPSHOTS = 1_000;
/** Requests of a snapshot that come too early, where no time is given. */
const EARLY_REQUESTS = 3;

interface Bucket {
  allowance: number;
  filledAt: number;
}

export class StandingFault {
  readonly id: number;
  readonly rule: FaultRule;
  /** Calls that the rule is about, and those of them that it struck. */
  matched = 0;
  hit = 0;
  readonly #lookUp: SnapshotLookUp;
  readonly #bucket: Bucket;
  readonly #buckets: LRUCache<string, Bucket> | undefined;
  readonly #early: LRUCache<string, number> | undefined;
  #random: number;

  constructor(id: number, rule: FaultRule, lookUp: SnapshotLookUp) {
    this.id = id;
    this.rule = rule;
    this.#lookUp = lookUp;
    this.#bucket = this.#newBucket();
    this.#random = ((rule.seed ?? id) * 2654435761) >>> 0;
    if (rule.perSnapshot) this.#buckets = new LRUCache({ max: MAX_SNAPSHOTS });
    if (isEventual(rule)) this.#early = new LRUCache({ max: MAX_SNAPSHOTS });
  }

  /** Whether the rule is about a call. @param hasToken it carries a block or page token. */
  isAbout({ operation, snapshotId, blockIndex }: Route, hasToken: boolean): boolean {
    const { rule } = this;
    if (!canStrike(rule.action, operation)) return false;
    if (rule.action === "expired-token" && !hasToken) return false;
    if (rule.operations !== undefined && !rule.operations.includes(operation)) return false;
    if (rule.snapshots !== undefined && !rule.snapshots.includes(snapshotId)) return false;
    const { blocks } = rule;
    if (blocks !== undefined && (blockIndex < blocks[0] || blockIndex > blocks[1])) return false;
    return this.#early === undefined || this.#isEarly(snapshotId, this.#early);
  }

  /** Whether it strikes this one of the calls that it is about; counts it. */
  strikes({ snapshotId }: Route): boolean {
    const { rule } = this;
    this.matched += 1;
    if (this.matched <= (rule.skip ?? 0)) return false;
    if (this.hit >= (rule.count ?? Number.POSITIVE_INFINITY)) return false;
    if (rule.probability !== undefined && this.random() >= rule.probability) return false;
    if (rule.action === "rate" && this.#takeAllowance(snapshotId)) return false;
    this.#early?.set(snapshotId, (this.#early.get(snapshotId) ?? 0) + 1);
    this.hit += 1;
    return true;
  }

  /** 0 to 1, by xorshift32 of the rule's own, so that calls of other kinds do not change its sequence. */
  random(): number {
    let x = this.#random === 0 ? 1 : this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x >>> 0;
    return this.#random / 2 ** 32;
  }

  /** Whether the service may not know yet that the snapshot was started, or completed. */
  #isEarly(snapshotId: string, early: LRUCache<string, number>): boolean {
    const { action, ms, requests } = this.rule;
    const snapshot = this.#lookUp(snapshotId);
    if (snapshot === undefined) return false;
    const { status, startedAt, completesAt } = snapshot;
    if (status !== (action === "eventual-start" ? "pending" : "completed")) return false;
    // A synthetic snapshot has been there ever since.
    const since = action === "eventual-start" ? startedAt : (completesAt ?? 0);
    if (ms !== undefined && Date.now() - since >= ms) return false;
    const limit = requests ?? (ms === undefined ? EARLY_REQUESTS : Number.POSITIVE_INFINITY);
    return (early.get(snapshotId) ?? 0) < limit;
  }

  #newBucket(): Bucket {
    return { allowance: this.#burst, filledAt: performance.now() };
  }

  get #burst(): number {
    return this.rule.burst ?? Math.max(1, this.rule.perSecond ?? 1);
  }

  #takeAllowance(snapshotId: string): boolean {
    const bucket = this.#bucketOf(snapshotId);
    const now = performance.now();
    const earned = ((now - bucket.filledAt) / 1000) * (this.rule.perSecond ?? 1);
    bucket.allowance = Math.min(this.#burst, bucket.allowance + earned);
    bucket.filledAt = now;
    if (bucket.allowance < 1) return false;
    bucket.allowance -= 1;
    return true;
  }

  #bucketOf(snapshotId: string): Bucket {
    if (this.#buckets === undefined) return this.#bucket;
    const known = this.#buckets.get(snapshotId);
    if (known !== undefined) return known;
    const bucket = this.#newBucket();
    this.#buckets.set(snapshotId, bucket);
    return bucket;
  }
}

function isEventual({ action }: FaultRule): boolean {
  return action === "eventual-start" || action === "eventual-complete";
}
