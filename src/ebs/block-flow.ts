/**
 * When a block may go: as the line carries it (line-gate.ts), as the user's bandwidth limit allows, and within
 * the service's quota (pacer.ts). Gets and puts have gates of their own, because they go in opposite
 * directions; the bandwidth limit is for both together.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { BLOCK_SIZE } from "../common/sizes.js";
import { LineGate } from "./line-gate.js";
import { Pacer } from "./pacer.js";

/**
 * GetSnapshotBlock and PutSnapshotBlock, each, a second and snapshot; not to be raised. Source: AWS General
 * Reference, "Amazon EBS endpoints and quotas", EBS direct APIs.
 */
const AWS_PER_SECOND = 1_000;
const AWS_HOST = /\.(?:amazonaws\.com(?:\.cn)?|api\.aws)(?::\d+)?$/i;
/** Snapshots whose pace is known at a time. */
const MAX_PACERS = 64;

export interface FlowOptions {
  /** Blocks under way at a time, in one direction. */
  readonly concurrency: number;
  /** Bytes of blocks a second, in both directions together. */
  readonly bytesPerSecond?: number;
  /** Gets, and puts, a second and snapshot; unless given, AWS's quota on AWS's own hosts and no limit elsewhere. */
  readonly requestsPerSecond?: number;
}

export type Direction = "get" | "put";

export class BlockFlow {
  readonly #gates: Record<Direction, LineGate>;
  readonly #bandwidth: Pacer | undefined;
  readonly #requestsPerSecond: number | undefined;
  /** By direction and snapshot. */
  readonly #pacers = new Map<string, Pacer>();

  constructor({ concurrency, bytesPerSecond, requestsPerSecond }: FlowOptions) {
    this.#gates = { get: new LineGate(concurrency), put: new LineGate(concurrency) };
    this.#requestsPerSecond = requestsPerSecond;
    if (bytesPerSecond !== undefined) this.#bandwidth = new Pacer(bytesPerSecond / BLOCK_SIZE);
  }

  /** Blocks that are worth getting, or putting, at a time now. */
  limit(direction: Direction): number {
    return this.#gates[direction].limit;
  }

  /**
   * Runs `work` when it may.
   * @param host where the request goes, `host:port` or a URL's origin.
   * @throws the signal's reason, and what `work` throws
   */
  async run<T>(
    direction: Direction,
    snapshotId: string,
    host: string,
    signal: AbortSignal | undefined,
    work: () => Promise<T>,
  ): Promise<T> {
    const gate = this.#gates[direction];
    const enteredAt = await gate.enter(signal);
    let succeeded = false;
    let startedAt = enteredAt;
    try {
      const waitMs = Math.max(
        this.#bandwidth?.take() ?? 0,
        this.#pacerOf(direction, snapshotId, host)?.take() ?? 0,
      );
      if (waitMs >= 1) {
        await sleep(waitMs, undefined, { ...(signal && { signal }) }).catch(() => {});
        signal?.throwIfAborted();
        startedAt += waitMs;
      }
      const result = await work();
      succeeded = true;
      return result;
    } finally {
      gate.leave(startedAt, succeeded);
    }
  }

  #pacerOf(direction: Direction, snapshotId: string, host: string): Pacer | undefined {
    const perSecond = this.#requestsPerSecond ?? (AWS_HOST.test(host) ? AWS_PER_SECOND : undefined);
    if (perSecond === undefined) return undefined;
    const key = `${direction} ${snapshotId}`;
    let pacer = this.#pacers.get(key);
    if (pacer === undefined) {
      if (this.#pacers.size >= MAX_PACERS) {
        this.#pacers.delete(this.#pacers.keys().next().value as string);
      }
      pacer = new Pacer(perSecond);
      this.#pacers.set(key, pacer);
    }
    return pacer;
  }
}
