/**
 * How requests travel from the thread that reads /dev/fuse to the main thread: through shared
 * memory, so that no message and no object is made for each. A ring holds the headers (every request
 * that is forwarded fits one entry, but for the data of a WRITE); the data of a WRITE stays in the
 * slot it was read into until the main thread gives the slot back. One message wakes the main thread
 * and it then takes everything there is; while it is awake no further message is sent. Both sizes
 * are limits: with the ring or the slots full the reading thread waits, and the kernel keeps what
 * more there is.
 */
import { REQUEST_BUFFER_BYTES } from "./protocol.js";

const RING_ENTRIES = 256;
const ENTRY_BYTES = 512;
/** Word 0 of an entry is the slot of a WRITE plus one, or 0; the request follows at word 4. */
const ENTRY_SLOT = 0;
const ENTRY_REQUEST = 4;
/** Largest request that fits an entry; a LOOKUP of the longest name has 296. */
export const MAX_FORWARDED_BYTES = ENTRY_BYTES - ENTRY_REQUEST * 4;
/** One is always with the kernel; the others are writes under way. */
const SLOTS = 32;

const HEAD = 0;
const TAIL = 1;
/** 1 from the message that wakes the main thread until that has found the ring empty. */
const AWAKE = 2;
/** Counts slots given back. */
const RELEASED = 3;
/** The descriptor of /dev/fuse plus one once the mount is made; -1 when it failed. */
const START = 4;
const FIRST_SLOT_STATE = 8;

export interface SharedRequestMemory {
  readonly control: SharedArrayBuffer;
  readonly ring: SharedArrayBuffer;
  /** Only pages that were written to take memory. */
  readonly slots: SharedArrayBuffer;
}

export function allocateSharedRequests(): SharedRequestMemory {
  return {
    control: new SharedArrayBuffer(4 * (FIRST_SLOT_STATE + SLOTS)),
    ring: new SharedArrayBuffer(RING_ENTRIES * ENTRY_BYTES),
    slots: new SharedArrayBuffer(SLOTS * REQUEST_BUFFER_BYTES),
  };
}

/** The side of the thread that reads /dev/fuse. All waits end when the main thread gives room. */
export class RequestProducer {
  readonly #control: Int32Array;
  readonly #ring: Uint32Array;
  readonly #bytes: Buffer[] = [];
  readonly #words: Uint32Array[] = [];

  constructor(memory: SharedRequestMemory) {
    this.#control = new Int32Array(memory.control);
    this.#ring = new Uint32Array(memory.ring);
    for (let slot = 0; slot < SLOTS; slot += 1) {
      const at = slot * REQUEST_BUFFER_BYTES;
      this.#bytes.push(Buffer.from(memory.slots, at, REQUEST_BUFFER_BYTES));
      this.#words.push(new Uint32Array(memory.slots, at, REQUEST_BUFFER_BYTES / 4));
    }
  }

  /** Waits for the mount. @returns the descriptor of /dev/fuse, undefined where mounting failed. */
  waitForStart(): number | undefined {
    Atomics.wait(this.#control, START, 0);
    const start = Atomics.load(this.#control, START);
    return start > 0 ? start - 1 : undefined;
  }

  /** A slot to read a request into: the lowest free one, so that few pages are ever touched. */
  takeSlot(): number {
    for (;;) {
      const released = Atomics.load(this.#control, RELEASED);
      for (let slot = 0; slot < SLOTS; slot += 1) {
        if (Atomics.load(this.#control, FIRST_SLOT_STATE + slot) === 0) return slot;
      }
      Atomics.wait(this.#control, RELEASED, released);
    }
  }

  bytes(slot: number): Buffer {
    return this.#bytes[slot]!;
  }

  words(slot: number): Uint32Array {
    return this.#words[slot]!;
  }

  /**
   * Hands over the request of `length` bytes in a slot; with `keepSlot` its data as well, which
   * stays in the slot until the main thread releases it.
   * @returns true where the main thread must be woken by a message.
   */
  push(slot: number, length: number, keepSlot: boolean): boolean {
    const control = this.#control;
    const tail = Atomics.load(control, TAIL);
    let head = Atomics.load(control, HEAD);
    while (((tail - head) | 0) >= RING_ENTRIES) {
      Atomics.wait(control, HEAD, head);
      head = Atomics.load(control, HEAD);
    }
    const entry = ((tail & (RING_ENTRIES - 1)) * ENTRY_BYTES) / 4;
    const request = this.#words[slot]!;
    this.#ring[entry + ENTRY_SLOT] = keepSlot ? slot + 1 : 0;
    const words = Math.min(length, MAX_FORWARDED_BYTES) >> 2;
    for (let i = 0; i < words; i += 1) this.#ring[entry + ENTRY_REQUEST + i] = request[i]!;
    // A name's last bytes may not fill a word.
    if ((length & 3) !== 0 && words * 4 < MAX_FORWARDED_BYTES) {
      this.#ring[entry + ENTRY_REQUEST + words] = request[words]!;
    }
    if (keepSlot) Atomics.store(control, FIRST_SLOT_STATE + slot, 1);
    Atomics.store(control, TAIL, (tail + 1) | 0);
    return Atomics.exchange(control, AWAKE, 1) === 0;
  }
}

/** The side of the main thread. */
export class RequestConsumer {
  readonly #control: Int32Array;
  readonly #memory: SharedRequestMemory;
  readonly #entries: Uint32Array[] = [];
  readonly #requests: Uint32Array[] = [];

  constructor(memory: SharedRequestMemory) {
    this.#memory = memory;
    this.#control = new Int32Array(memory.control);
    for (let entry = 0; entry < RING_ENTRIES; entry += 1) {
      this.#entries.push(new Uint32Array(memory.ring, entry * ENTRY_BYTES, ENTRY_BYTES / 4));
      const at = entry * ENTRY_BYTES + ENTRY_REQUEST * 4;
      this.#requests.push(new Uint32Array(memory.ring, at, MAX_FORWARDED_BYTES / 4));
    }
  }

  /** Lets the other thread begin; undefined: it shall end. */
  start(fd: number | undefined): void {
    Atomics.store(this.#control, START, fd === undefined ? -1 : fd + 1);
    Atomics.notify(this.#control, START);
  }

  /**
   * Gives every waiting request to `handle`: its words, which may be used only until `handle`
   * returns, and the slot of a WRITE's data or -1.
   */
  drain(handle: (words: Uint32Array, slot: number) => void): void {
    const control = this.#control;
    for (;;) {
      let head = Atomics.load(control, HEAD);
      while (head !== Atomics.load(control, TAIL)) {
        const entry = head & (RING_ENTRIES - 1);
        try {
          handle(this.#requests[entry]!, this.#entries[entry]![ENTRY_SLOT]! - 1);
        } finally {
          head = (head + 1) | 0;
          Atomics.store(control, HEAD, head);
          Atomics.notify(control, HEAD);
        }
      }
      Atomics.store(control, AWAKE, 0);
      if (head === Atomics.load(control, TAIL)) return;
      // Something came between: whoever sets AWAKE goes on, by this loop or by a message.
      if (Atomics.exchange(control, AWAKE, 1) === 1) return;
    }
  }

  /** A part of a slot, valid until the slot is released. */
  slotBytes(slot: number, start: number, length: number): Uint8Array {
    return new Uint8Array(this.#memory.slots, slot * REQUEST_BUFFER_BYTES + start, length);
  }

  releaseSlot(slot: number): void {
    Atomics.store(this.#control, FIRST_SLOT_STATE + slot, 0);
    Atomics.add(this.#control, RELEASED, 1);
    Atomics.notify(this.#control, RELEASED);
  }
}
