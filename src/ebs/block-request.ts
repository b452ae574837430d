/**
 * One try at getting or putting a block: signed, sent, verified. It is the same in the main thread and in the
 * block threads; retries are above it (retry.ts).
 */

import { BLOCK_SIZE } from "../common/sizes.js";
import type { HttpRequest, HttpTransport } from "../http/transport.js";
import { headerText, malformed } from "./answers.js";
import { sha256 } from "./checksum.js";
import { escapeUri } from "./request-handler.js";
import { ServiceException } from "./service-exception.js";
import type { Signer } from "./signature.js";
import { AnswerError } from "./trouble.js";

/** One block to get into, or put from, memory. Plain data. */
export interface BlockRequest {
  readonly kind: "get" | "put";
  readonly snapshotId: string;
  readonly blockIndex: number;
  /** Of a get; empty for a put. */
  readonly blockToken: string;
  /** As in HttpRequest, ms. */
  readonly stallMs: number;
}

/** SHA-256 of no bytes: a get has no body. */
const EMPTY_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/** Longest body of a put's response, bytes. */
const MAX_PUT_RESPONSE_BYTES = 256 * 1024;

/**
 * @param block exactly BLOCK_SIZE bytes: what a get fills and a put sends.
 * @returns the block's raw SHA-256, 32 bytes.
 * @throws ServiceException, AnswerError, HttpError
 */
export async function sendBlockRequest(
  transport: HttpTransport,
  signer: Signer,
  request: BlockRequest,
  block: Uint8Array,
  signal?: AbortSignal,
  progress?: (bodyBytes: number) => void,
): Promise<Uint8Array> {
  const { origin, basePath } = signer.context;
  const path = `${basePath}/snapshots/${request.snapshotId}/blocks/${request.blockIndex}`;
  const shared = {
    maxBodyBytes: MAX_PUT_RESPONSE_BYTES,
    stallMs: request.stallMs,
    ...(progress !== undefined && { progress }),
  };
  if (request.kind === "get") {
    const query = `blockToken=${escapeUri(request.blockToken)}`;
    const headers = signer.sign("GET", path, query, {}, EMPTY_HASH);
    const url = `${origin}${path}?${query}`;
    const response = await send(
      transport,
      { ...shared, method: "GET", url, headers, target: block },
      signal,
    );
    return verifyBlock(response.headers, block);
  }
  const digest = sha256(block);
  const own = putHeaders(digest);
  const headers = signer.sign("PUT", path, "", own, digest.toString("hex"));
  const url = `${origin}${path}`;
  const response = await send(
    transport,
    { ...shared, method: "PUT", url, headers, body: block },
    signal,
  );
  verifyPut(response.headers, digest);
  return digest;
}

async function send(
  transport: HttpTransport,
  request: HttpRequest,
  signal: AbortSignal | undefined,
) {
  const response = await transport.send(request, signal);
  if (response.status < 300) return response;
  throw ServiceException.read(response);
}

function putHeaders(digest: Buffer): Record<string, string> {
  return {
    "content-type": "application/octet-stream",
    "x-amz-data-length": String(BLOCK_SIZE),
    "x-amz-checksum": digest.toString("base64"),
    "x-amz-checksum-algorithm": "SHA256",
  };
}

/**
 * Its length is checked already: the transport fills the target exactly.
 * @returns the block's raw SHA-256. @throws AnswerError
 */
function verifyBlock(headers: Readonly<Record<string, string>>, block: Uint8Array): Uint8Array {
  const length = headerText(headers, "x-amz-data-length");
  if (length !== undefined && Number(length) !== BLOCK_SIZE) {
    const message = `it calls itself ${length.slice(0, 20)} bytes long.`;
    throw new AnswerError("corrupt", "WrongDataLength", message);
  }
  const algorithm = headerText(headers, "x-amz-checksum-algorithm");
  if (algorithm !== undefined && algorithm.toUpperCase().replace("-", "") !== "SHA256") {
    throw malformed(`its checksum algorithm is ${algorithm.slice(0, 20)}, not SHA256`);
  }
  const checksum = headerText(headers, "x-amz-checksum");
  if (checksum === undefined) throw malformed("a block came without its checksum");
  const digest = sha256(block);
  if (digest.toString("base64") !== checksum) {
    const message = "the block's bytes do not match its SHA-256.";
    throw new AnswerError("corrupt", "ChecksumMismatch", message);
  }
  return digest;
}

/** @throws AnswerError where the service says that it stored other bytes. */
function verifyPut(headers: Readonly<Record<string, string>>, digest: Buffer): void {
  const stored = headerText(headers, "x-amz-checksum");
  if (stored !== undefined && stored !== digest.toString("base64")) {
    const message = "the service took other bytes than were sent (its checksum differs).";
    throw new AnswerError("corrupt", "ChecksumMismatch", message);
  }
}
