/**
 * Finds sequential readers in what is read of one device, and asks for the blocks they will want.
 * Each run of adjacent reads is a stream of its own, so several readers, or one file system with
 * several files, do not disturb one another. A stream earns its window: twice the blocks it has read
 * in sequence, up to the limit; so a short file costs little more than itself, a long one soon has
 * enough in flight to cover latency times bandwidth, and random reads get nothing.
 *
 * Reads arrive a little out of order (the kernel's own readahead sends several at once), so a stream
 * also takes reads slightly behind or before its position. When other reads go on and a stream does
 * not, it has been left (a seek): what it asked for and is not yet being fetched is dropped, which
 * together with the window bounds what a seek can waste.
 */

/** What readahead does its work with. */
export interface ReadaheadTarget {
  /** Fetch this block when nothing more urgent is to be done. */
  prefetch(block: number): void;
  /** Drop the prefetch if it has not started. */
  cancel(block: number): void;
  /** The block was fetched ahead and has been read, perhaps in another thread. */
  wasReached(block: number): boolean;
  /** Blocks after this one may be wanted: have the index ready. */
  prepare(block: number): void;
}

export interface ReadaheadOptions {
  /** Blocks in the device. */
  readonly blocks: number;
  /** Blocks ahead of all streams together, at most; 0 switches readahead off. */
  readonly window: () => number;
}

interface Stream {
  /** The block after the furthest one read. */
  next: number;
  /** The block after the furthest one asked for. */
  asked: number;
  /** Blocks read in sequence. */
  run: number;
  /** Reads elsewhere since it last advanced. */
  elsewhere: number;
}

/** Streams followed at a time; the one longest without a read makes room. */
const STREAMS = 16;
/** Blocks that a read may lie behind or before a stream's position and belong to it. */
const BEHIND = 8;
const BEFORE = 4;
/** A stream is left once this many reads went elsewhere, plus as many for each stream at work. */
const PATIENCE = 4;

export class Readahead {
  readonly #target: ReadaheadTarget;
  readonly #options: ReadaheadOptions;
  /** The one read last comes first. */
  readonly #streams: Stream[] = [];

  constructor(target: ReadaheadTarget, options: ReadaheadOptions) {
    this.#target = target;
    this.#options = options;
  }

  /** Blocks [first, last] are being read. */
  onRead(first: number, last: number): void {
    const at = this.#streams.findIndex(
      (stream) => first >= stream.next - BEHIND && first <= stream.next + BEFORE,
    );
    if (at < 0) {
      this.#streams.unshift({ next: last + 1, asked: last + 1, run: 0, elsewhere: 0 });
      this.#missElsewhere();
      if (this.#streams.length > STREAMS) this.#leave(this.#streams.pop() as Stream);
      return;
    }
    const stream = this.#streams[at] as Stream;
    if (at > 0) {
      this.#streams.splice(at, 1);
      this.#streams.unshift(stream);
    }
    if (last >= stream.next) this.#advance(stream, last + 1);
  }

  /** Some block that was fetched ahead has been read where `onRead` is not called. */
  onReached(): void {
    for (const stream of [...this.#streams]) {
      for (let block = stream.asked - 1; block >= stream.next; block -= 1) {
        if (!this.#target.wasReached(block)) continue;
        this.#advance(stream, block + 1);
        break;
      }
    }
  }

  /** Drops all that was asked for and has not started. */
  cancel(): void {
    for (const stream of this.#streams) this.#leave(stream);
  }

  #advance(stream: Stream, next: number): void {
    stream.run += next - stream.next;
    stream.next = next;
    stream.elsewhere = 0;
    this.#missElsewhere();
    const end = Math.min(next + this.#windowOf(stream), this.#options.blocks);
    for (let block = Math.max(stream.asked, next); block < end; block += 1) {
      this.#target.prefetch(block);
    }
    stream.asked = Math.max(stream.asked, end, next);
    if (end > next) this.#target.prepare(end - 1);
  }

  #windowOf(stream: Stream): number {
    const atWork = this.#streams.filter((other) => other.run > 0).length;
    const share = Math.floor(this.#options.window() / Math.max(1, atWork));
    return Math.min(share, 2 * stream.run);
  }

  /** The first stream was read: the others were not. */
  #missElsewhere(): void {
    const atWork = this.#streams.filter((stream) => stream.asked > stream.next).length;
    for (const stream of this.#streams.slice(1)) {
      stream.elsewhere += 1;
      if (stream.elsewhere > PATIENCE * (1 + atWork)) this.#leave(stream);
    }
  }

  #leave(stream: Stream): void {
    for (let block = stream.next; block < stream.asked; block += 1) this.#target.cancel(block);
    stream.asked = stream.next;
    stream.run = 0;
  }
}
