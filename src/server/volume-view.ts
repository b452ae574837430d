/**
 * What a volume made of a snapshot would read: GET /_ebsmount/snapshots/ID/volume, the raw disk as one
 * stream, or a part of it (Range). Blocks that the snapshot has are sent as they are. Absent ones read
 * as on a volume of the service that is encrypted: as the decryption of zeros, which looks random
 * (awslabs/coldsnap#395). Here it is a key stream of AES-128-CTR, its key from the snapshot's id, its
 * counter from the block's index, so that it is the same whenever it is read. A snapshot that lacks
 * zeros which a file system relies on is found out by mounting this.
 */
import { createCipheriv, createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BLOCK_SIZE, GIB } from "../common/sizes.js";
import { ZEROS } from "../common/zeros.js";
import { id } from "./call.js";
import type { ReadContext } from "./read-operations.js";
import { invalid, ServiceError } from "./service-error.js";
import type { SnapshotView } from "./snapshot-view.js";
import type { Views } from "./views.js";

const VOLUME_PATH = /^\/_ebsmount\/snapshots\/([^/?]+)\/volume$/;
const KEY_BYTES = 16;

export interface VolumeContext extends Pick<ReadContext, "store" | "views"> {
  readonly log: (message: string) => void;
}

/** Bytes [start, end) of a volume. */
interface Range {
  readonly start: number;
  readonly end: number;
}

/**
 * Sends a volume where the request asks for one. @returns whether it did; if so the response is over.
 * @throws ServiceError for a snapshot that is not there or not completed; nothing is sent then.
 */
export async function sendVolume(
  { store, views, log }: VolumeContext,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<boolean> {
  const path = VOLUME_PATH.exec(request.url ?? "");
  if (path === null || !/^(GET|HEAD)$/.test(request.method ?? "")) return false;
  const record = store.get(id(path[1]!));
  if (record.status !== "completed") {
    const why = `its status is ${record.status}, not completed`;
    throw invalid("INVALID_SNAPSHOT_ID", `'${record.snapshotId}' makes no volume yet: ${why}.`);
  }
  const size = record.parameters.volumeSizeGiB * GIB;
  const asked = parseRange(request.headers.range, size);
  if (asked === "unsatisfiable") {
    response.setHeader("Content-Range", `bytes */${size}`);
    throw new ServiceError("InvalidRange", `The volume has ${size} bytes.`, undefined, 416);
  }
  const { start, end } = asked ?? { start: 0, end: size };
  const view = await views.of(record);
  response.writeHead(asked === undefined ? 200 : 206, {
    "Content-Type": "application/octet-stream",
    "Content-Length": String(end - start),
    "Accept-Ranges": "bytes",
    ...(asked && { "Content-Range": `bytes ${start}-${end - 1}/${size}` }),
  });
  if (request.method === "HEAD") {
    response.end();
    return true;
  }
  try {
    await pipeline(
      Readable.from(bytesOf(views, view, record.snapshotId, { start, end })),
      response,
    );
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // The client has left: qemu and curl do, once they have what they want.
    if (code !== "ERR_STREAM_PREMATURE_CLOSE") log(`A volume could not be sent: ${message}`);
    response.destroy();
  }
  return true;
}

async function* bytesOf(
  views: Views,
  view: SnapshotView,
  snapshotId: string,
  { start, end }: Range,
): AsyncGenerator<Uint8Array> {
  const key = createHash("sha256").update(snapshotId).digest().subarray(0, KEY_BYTES);
  for (let at = start; at < end; ) {
    const block = Math.floor(at / BLOCK_SIZE);
    const offset = block * BLOCK_SIZE;
    const stop = Math.min(end, offset + BLOCK_SIZE);
    const memory = new ArrayBuffer(BLOCK_SIZE);
    const buffer = { bytes: Buffer.from(memory), words: new Uint32Array(memory), seed: undefined };
    const isThere = (await views.read(view, block, buffer)) !== undefined;
    const bytes = isThere ? buffer.bytes : absentBlock(key, block);
    yield bytes.subarray(at - offset, stop - offset);
    at = stop;
  }
}

function absentBlock(key: Buffer, block: number): Buffer {
  const counter = Buffer.alloc(16);
  counter.writeUInt32BE(block, 0);
  return createCipheriv("aes-128-ctr", key, counter).update(ZEROS.subarray(0, BLOCK_SIZE));
}

/** One range in bytes; undefined for none, or for what is not understood and may be passed over. */
function parseRange(header: string | undefined, size: number): Range | "unsatisfiable" | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? "");
  if (match === null) return undefined;
  const [first, last] = [match[1]!, match[2]!];
  if (first === "" && last === "") return undefined;
  const start = first === "" ? Math.max(0, size - Number(last)) : Number(first);
  const end = first === "" || last === "" ? size : Math.min(size, Number(last) + 1);
  if (first !== "" && last !== "" && Number(last) < start) return undefined;
  return start < end ? { start, end } : "unsatisfiable";
}
