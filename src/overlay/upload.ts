/**
 * Brings single blocks of an overlay into the pending snapshot, for the background upload and for the
 * commit alike. To settle a block is to make sure that the pending snapshot shows what the overlay
 * shows: merge it with its base into a private buffer, put it unless it equals the base and was never
 * put, or is known to be there already. Where the base has no such block, only a block in which nothing
 * was written equals it: written zeros are put, because an absent block need not read as zeros on a
 * volume made of the snapshot. Writes may go on meanwhile: each one unsettles its blocks, and
 * a put that a write overtook settles nothing.
 */
import { BLOCK_SIZE } from "../common/sizes.js";
import type { BlockDevice } from "../device/block-device.js";
import type { EbsApi } from "../ebs/api.js";
import { sha256 } from "../ebs/checksum.js";
import { BlockBuffers } from "../snapshot/block-buffers.js";
import { Attempt, isGone, isRefusal } from "./attempt.js";
import { BlockSet } from "./block-set.js";
import type { DirtyListener, OverlayDevice } from "./overlay-device.js";
import type { Session } from "./session.js";

/** What it took: `put` cost a put, the others none. */
export type Settled = "put" | "there" | "equal";

/** Tries of one block, each in another attempt. */
const MAX_TRIES = 4;

interface InFlight {
  overtaken: boolean;
}

export class Upload implements DirtyListener {
  readonly session: Session;
  readonly device: OverlayDevice;
  readonly api: EbsApi;
  readonly attempt: Attempt;
  /** When a put last went through, ms of performance.now; the pending snapshot lives from puts. */
  lastPutAt = performance.now();
  /** Also told of writes. */
  onTouched: ((firstBlock: number, endBlock: number) => void) | undefined;
  readonly #settled = new BlockSet();
  readonly #inFlight = new Map<number, InFlight>();
  readonly #buffers: BlockBuffers;
  #recovering: Promise<boolean> | undefined;

  private constructor(
    session: Session,
    device: OverlayDevice,
    api: EbsApi,
    attempt: Attempt,
    buffers: number,
  ) {
    this.session = session;
    this.device = device;
    this.api = api;
    this.attempt = attempt;
    this.#buffers = new BlockBuffers(buffers);
    device.listen(this);
  }

  /**
   * Takes up what the session has put so far, and listens to the device from now on.
   * @param buffers block buffers (512 KiB each) at most
   */
  static async open(
    session: Session,
    device: OverlayDevice,
    api: EbsApi,
    buffers = 64,
  ): Promise<Upload> {
    const attempt = await Attempt.open(session, api);
    return new Upload(session, device, api, attempt, buffers);
  }

  touched(firstBlock: number, endBlock: number): void {
    this.#settled.deleteRange(firstBlock, endBlock);
    if (this.#inFlight.size > 0) {
      for (const [block, flight] of this.#inFlight) {
        if (block >= firstBlock && block < endBlock) flight.overtaken = true;
      }
    }
    this.onTouched?.(firstBlock, endBlock);
  }

  isSettled(block: number): boolean {
    return this.#settled.has(block);
  }

  isInFlight(block: number): boolean {
    return this.#inFlight.has(block);
  }

  /** Blocks that were put, or may have been, and must be looked at again before completing. */
  *unsettledIntents(): Generator<number> {
    for (const block of this.attempt.log.intended.values()) {
      if (!this.#settled.has(block)) yield block;
    }
  }

  /**
   * Settles one block; never twice at a time for the same block.
   * @param again put it even where it is there already, to keep the pending snapshot alive
   * @throws Failure as the base, the overlay and the service throw
   */
  async settle(block: number, signal?: AbortSignal, again = false): Promise<Settled> {
    for (let tries = 1; ; tries++) {
      const { number } = this.attempt;
      try {
        return await this.#settleOnce(block, again, signal);
      } catch (error) {
        signal?.throwIfAborted();
        const anew = number !== this.attempt.number || (await this.recover(error, number));
        if (!anew || tries >= MAX_TRIES) throw error;
      }
    }
  }

  /**
   * After a failed put: asks whether the pending snapshot is lost, and if so begins the next attempt.
   * @returns whether there is a new attempt, so that trying again makes sense
   */
  async recover(error: unknown, number: number): Promise<boolean> {
    if (!isRefusal(error)) return false;
    if (this.attempt.number !== number) return true;
    this.#recovering ??= this.#recover(error, number).finally(() => {
      this.#recovering = undefined;
    });
    return this.#recovering;
  }

  /** Begins the next attempt: everything is to be put again. */
  async restart(): Promise<void> {
    await this.attempt.restart();
    this.#settled.clear();
  }

  /** What was settled was so in an earlier attempt. */
  forget(): void {
    this.#settled.clear();
  }

  close(): Promise<void> {
    return this.attempt.close();
  }

  async #recover(error: unknown, number: number): Promise<boolean> {
    const status = await this.attempt.ask();
    if (this.attempt.number === number) {
      // It was started a moment ago, and not every part of the service knows it yet.
      if (status === "pending" && isGone(error)) return true;
      // Nothing was completed yet, so at worst a pending snapshot is left to time out.
      if (status === "pending" || status === "completed") return false;
      await this.attempt.restart();
    }
    this.#settled.clear();
    return true;
  }

  async #settleOnce(block: number, again: boolean, signal?: AbortSignal): Promise<Settled> {
    const buffer = await this.#buffers.take();
    const flight: InFlight = { overtaken: false };
    this.#inFlight.set(block, flight);
    const { number } = this.attempt;
    const { log } = this.attempt;
    try {
      const equal = await this.#merge(block, buffer);
      const outcome = await this.#bring(block, buffer, equal, again, signal);
      if (!flight.overtaken && number === this.attempt.number && log === this.attempt.log) {
        this.#settled.add(block);
      }
      return outcome;
    } finally {
      this.#inFlight.delete(block);
      this.#buffers.give(buffer);
    }
  }

  async #bring(
    block: number,
    buffer: Uint8Array,
    equal: boolean,
    again: boolean,
    signal?: AbortSignal,
  ): Promise<Settled> {
    const { log } = this.attempt;
    const intended = log.intended.has(block);
    if (equal && !intended) return "equal";
    if (intended && !again) {
      const noted = await log.get(block);
      if (noted !== undefined && sha256(buffer).equals(noted)) return "there";
    }
    const writer = await this.attempt.started();
    // The log of the writer at hand, whatever happens to the attempt meanwhile.
    if (writer.digests === log) await log.intend(block);
    else throw new Error("the attempt was begun anew while a block was being put");
    await writer.put(block, buffer, signal);
    this.attempt.progressed();
    this.lastPutAt = performance.now();
    return "put";
  }

  /** Fills `target` with the block as it is now. @returns whether it equals its base */
  async #merge(block: number, target: Uint8Array): Promise<boolean> {
    const offset = block * BLOCK_SIZE;
    if (await isAbsent(this.device.base, offset)) {
      target.fill(0);
      this.device.applyDirty(offset, target);
      return !this.device.isWritten(block);
    }
    const lent = await this.device.base.view(offset, BLOCK_SIZE);
    try {
      let at = 0;
      for (const part of lent.parts) {
        target.set(part, at);
        at += part.length;
      }
      this.device.applyDirty(offset, target);
      at = 0;
      for (const part of lent.parts) {
        if (Buffer.compare(part, target.subarray(at, at + part.length)) !== 0) return false;
        at += part.length;
      }
      return true;
    } finally {
      lent.release();
    }
  }
}

/** Whether the device has nothing written in the block at `offset`. */
async function isAbsent(device: BlockDevice, offset: number): Promise<boolean> {
  for await (const { kind } of device.extents(offset, BLOCK_SIZE)) {
    if (kind === "data") return false;
  }
  return true;
}
