/**
 * Reads a request's body as the parts in which it arrives and hashes it on the way: a block is
 * hashed while it comes in and written from these same parts, never copied together.
 */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { BLOCK_SIZE } from "../common/sizes.js";
import { invalid } from "./service-error.js";

export interface RequestBody {
  readonly parts: readonly Buffer[];
  readonly length: number;
  /** Raw SHA-256. */
  readonly digest: Buffer;
}

const EMPTY: RequestBody = {
  parts: [],
  length: 0,
  digest: createHash("sha256").digest(),
};

/**
 * @param limit bytes.
 * @returns undefined where the client went away in the middle.
 * @throws ServiceError where the body is longer than the limit (the rest is read and dropped).
 */
export function readBody(
  request: IncomingMessage,
  limit: number,
): Promise<RequestBody | undefined> {
  const { headers } = request;
  if (headers["transfer-encoding"] === undefined && Number(headers["content-length"] ?? 0) === 0) {
    return Promise.resolve(EMPTY);
  }
  return new Promise((resolve, reject) => {
    const hash = createHash("sha256");
    const parts: Buffer[] = [];
    let length = 0;
    request.on("data", (part: Buffer) => {
      length += part.length;
      if (length > limit) {
        parts.length = 0;
        return;
      }
      parts.push(part);
      hash.update(part);
    });
    request.on("end", () => {
      if (length <= limit) resolve({ parts, length, digest: hash.digest() });
      else {
        const reason = limit === BLOCK_SIZE ? "INVALID_BLOCK" : "INVALID_PARAMETER_VALUE";
        reject(invalid(reason, `The body has ${length} bytes: at most ${limit} fit.`));
      }
    });
    request.on("error", () => resolve(undefined));
    request.on("close", () => resolve(undefined));
  });
}
