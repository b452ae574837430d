/**
 * Block and page tokens. A token carries what it is good for (snapshot, block index or next index,
 * expiry) and a keyed code over that, so the server remembers none of them and they outlive a
 * restart, yet one that is altered, expired or used elsewhere is refused. A list page hands out up
 * to 10,000 block tokens, so those share one HMAC-derived key a page and add a cheap 64-bit code a
 * block: enough to catch every mix-up, and not meant to stand against forgery, since whoever can
 * reach this server may list anyway. Tokens differ from one listing to the next, as the service's do.
 */
import { createHash, createHmac, randomFillSync } from "node:crypto";
import { invalid } from "./service-error.js";

const BLOCK_KIND = 1;
const PAGE_KIND = 2;
// kind 3, snapshot 16, expiry 6, nonce 8: a multiple of 3, so Base64 of head and tail just join.
const HEAD_BYTES = 33;
const TAIL_BYTES = 12;
const HEAD_CHARS = (HEAD_BYTES / 3) * 4;
const TAIL_CHARS = (TAIL_BYTES / 3) * 4;
const PAGE_BYTES = 66;

/** The listing that a page token goes on with. */
export interface PageScope {
  readonly firstSnapshotId: string | undefined;
  readonly snapshotId: string;
}

function identity(text: string): Buffer {
  return createHash("sha256").update(text).digest().subarray(0, 16);
}

/** A keyed 32-bit mix (the finalizer of MurmurHash3, applied twice). */
function mix(index: number, key: number): number {
  let h = index ^ key;
  for (let round = 0; round < 2; round++) {
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h = (h ^ (h >>> 16)) + key;
  }
  return h >>> 0;
}

export class TokenIssuer {
  readonly #secret: Buffer;

  /** @param secret 32 bytes, the store's own. */
  constructor(secret: Buffer) {
    this.#secret = secret;
  }

  /** Tokens of the first `count` of `blockIndexes`, in their order. @param expiresAt ms since the epoch. */
  blockTokens(
    snapshotId: string,
    blockIndexes: Uint32Array,
    count: number,
    expiresAt: number,
  ): string[] {
    const head = Buffer.alloc(HEAD_BYTES);
    head[2] = BLOCK_KIND;
    identity(snapshotId).copy(head, 3);
    head.writeUIntBE(expiresAt, 19, 6);
    randomFillSync(head, 25, 8);
    const key = createHmac("sha256", this.#secret).update(head).digest();
    const [k0, k1] = [key.readUInt32LE(0), key.readUInt32LE(4)];
    const tails = Buffer.allocUnsafe(count * TAIL_BYTES);
    for (let i = 0; i < count; i++) {
      const index = blockIndexes[i]!;
      tails.writeUInt32BE(index, i * TAIL_BYTES);
      tails.writeUInt32BE(mix(index, k0), i * TAIL_BYTES + 4);
      tails.writeUInt32BE(mix(index, k1), i * TAIL_BYTES + 8);
    }
    const prefix = head.toString("base64");
    const joined = tails.toString("base64");
    const tokens = new Array<string>(count);
    for (let i = 0; i < count; i++) {
      tokens[i] = prefix + joined.slice(i * TAIL_CHARS, (i + 1) * TAIL_CHARS);
    }
    return tokens;
  }

  /** @throws ServiceError INVALID_BLOCK_TOKEN unless the token is for this block and not expired at `now`. */
  checkBlockToken(token: string, snapshotId: string, blockIndex: number, now: number): void {
    const bytes = Buffer.from(token, "base64");
    const wrong = (why: string) => invalid("INVALID_BLOCK_TOKEN", `The block token ${why}.`);
    if (token.length !== HEAD_CHARS + TAIL_CHARS || bytes.length !== HEAD_BYTES + TAIL_BYTES) {
      throw wrong("is malformed");
    }
    const head = bytes.subarray(0, HEAD_BYTES);
    const key = createHmac("sha256", this.#secret).update(head).digest();
    const index = bytes.readUInt32BE(HEAD_BYTES);
    if (
      head[2] !== BLOCK_KIND ||
      bytes.readUInt32BE(HEAD_BYTES + 4) !== mix(index, key.readUInt32LE(0)) ||
      bytes.readUInt32BE(HEAD_BYTES + 8) !== mix(index, key.readUInt32LE(4))
    ) {
      throw wrong("was not issued here");
    }
    if (identity(snapshotId).compare(head, 3, 19) !== 0) throw wrong("is for another snapshot");
    if (index !== blockIndex) throw wrong("is for another block");
    if (head.readUIntBE(19, 6) <= now) throw wrong("has expired");
  }

  /** The token that goes on at `nextIndex`. @param expiresAt ms since the epoch. */
  pageToken(scope: PageScope, nextIndex: number, expiresAt: number): string {
    const bytes = Buffer.alloc(PAGE_BYTES);
    bytes[2] = PAGE_KIND;
    identity(`${scope.firstSnapshotId ?? ""} ${scope.snapshotId}`).copy(bytes, 3);
    bytes.writeUIntBE(expiresAt, 19, 6);
    bytes.writeUInt32BE(nextIndex, 25);
    randomFillSync(bytes, 29, 5);
    this.#code(bytes).copy(bytes, 34);
    return bytes.toString("base64");
  }

  /** @returns the index to go on at. @throws ServiceError INVALID_PAGE_TOKEN */
  openPageToken(token: string, scope: PageScope, now: number): number {
    const bytes = Buffer.from(token, "base64");
    const wrong = (why: string) => invalid("INVALID_PAGE_TOKEN", `The page token ${why}.`);
    if (bytes.length !== PAGE_BYTES || token.length !== (PAGE_BYTES / 3) * 4) {
      throw wrong("is malformed");
    }
    if (bytes[2] !== PAGE_KIND || this.#code(bytes).compare(bytes, 34) !== 0) {
      throw wrong("was not issued here");
    }
    const list = identity(`${scope.firstSnapshotId ?? ""} ${scope.snapshotId}`);
    if (list.compare(bytes, 3, 19) !== 0) throw wrong("is for another list");
    if (bytes.readUIntBE(19, 6) <= now) throw wrong("has expired");
    return bytes.readUInt32BE(25);
  }

  #code(bytes: Buffer): Buffer {
    return createHmac("sha256", this.#secret).update(bytes.subarray(0, 34)).digest();
  }
}
