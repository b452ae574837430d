/**
 * The life of one HTTP request: routed, its body read, faults decided, its signature checked, the
 * operation run, and the answer sent, whole or spoilt as a fault orders. Every request ends in
 * exactly one of three ways: answered, dropped by a fault, or left by its client.
 */
import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { BLOCK_SIZE, MIB } from "../common/sizes.js";
import type { BlockBuffers } from "./block-buffers.js";
import { type Answer, type Call, clockOf, NO_EFFECTS, type Route, route } from "./call.js";
import type { FaultPlan, Faults } from "./faults.js";
import { LeftRequests } from "./left-requests.js";
import { readBody } from "./request-body.js";
import { ServiceError, StoreDamage } from "./service-error.js";
import { type Credentials, checkClock, checkSignature } from "./signature.js";
import type { Stats } from "./stats.js";

const MAX_JSON_BYTES = MIB;

export interface HandlerContext {
  readonly run: (call: Call) => Answer | Promise<Answer>;
  readonly faults: Faults;
  readonly stats: Stats;
  readonly buffers: BlockBuffers;
  /** undefined: any signature, or none, will do. */
  readonly credentials: Credentials | undefined;
  /** Ends ordered delays when the endpoint closes. */
  readonly closing: AbortSignal;
  /** Told of defects, never of block data. */
  readonly log: (message: string) => void;
}

export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

export function createHandler(context: HandlerContext): RequestHandler {
  let arrivals = 0;
  const left = new LeftRequests();
  return async (request, response) => {
    const arrival = ++arrivals;
    // A target in absolute form, as for a proxy, is one for us all the same (RFC 9112, 3.2.2).
    const url = (request.url ?? "/").replace(/^https?:\/\/[^/?]*(?=[/?]|$)/i, "");
    const mark = url.indexOf("?");
    let target: Route | undefined;
    try {
      target = route(request.method ?? "GET", mark < 0 ? url : url.slice(0, mark));
      if (target === undefined) {
        throw new ServiceError("UnknownOperationException", "No operation is here.");
      }
    } catch (error) {
      request.resume();
      send(response, errorAnswer(error, context), undefined, context);
      return;
    }
    const { operation } = target;
    const account = { bytesIn: 0, bytesOut: 0 };
    context.stats.begin(operation);
    left.whenOver(request.socket, response, () => {
      const status = response.writableFinished ? response.statusCode : undefined;
      context.stats.end(operation, status, account.bytesIn, account.bytesOut);
    });
    const query = new URLSearchParams(mark < 0 ? "" : url.slice(mark + 1));
    const hasToken = query.has("blockToken") || query.has("pageToken");
    const plan = context.faults.decide(target, hasToken);
    const effects = plan?.effects ?? NO_EFFECTS;
    let answer: Answer;
    try {
      const limit = operation === "PutSnapshotBlock" ? BLOCK_SIZE : MAX_JSON_BYTES;
      const body = await readBody(request, limit);
      if (body === undefined) return;
      account.bytesIn = body.length;
      if (plan !== undefined && plan.delay > 0) {
        await sleep(plan.delay, undefined, { signal: context.closing }).catch(() => {});
      }
      if (plan?.strike === "reset") return drop(request);
      if (plan?.strike === "hang") return;
      const { headers } = request;
      if (plan?.clock !== undefined) atItsOwnTime(response, headers, plan);
      if (context.credentials !== undefined) {
        const signed = { method: request.method ?? "GET", url, headers, bodyDigest: body.digest };
        checkSignature(signed, context.credentials, clockOf({ effects }));
      }
      if (plan?.error !== undefined) throw plan.error;
      const { parts, digest } = body;
      answer = await context.run({
        ...target,
        query,
        headers,
        body: parts,
        digest,
        arrival,
        effects,
      });
    } catch (error) {
      answer = errorAnswer(error, context);
    }
    account.bytesOut = send(response, answer, plan, context);
  };
}

/**
 * This server's clock is wrong, or rather the client's: the response says what time it is here, and
 * what was signed at another time is refused, whichever keys are accepted.
 * @throws ServiceError
 */
function atItsOwnTime(
  response: ServerResponse,
  headers: IncomingHttpHeaders,
  { clock, effects }: FaultPlan,
): void {
  const now = clockOf({ effects });
  response.setHeader("Date", new Date(now).toUTCString());
  if (headers.authorization !== undefined) checkClock(headers, now, clock?.name);
}

function drop(request: IncomingMessage): void {
  request.socket.resetAndDestroy();
}

function errorAnswer(error: unknown, context: HandlerContext): Answer {
  let known: ServiceError;
  if (error instanceof ServiceError) {
    known = error;
    if (error instanceof StoreDamage) context.log(error.message);
  } else {
    context.log(`A request failed: ${error instanceof Error ? error.stack : String(error)}`);
    const { code } = error as NodeJS.ErrnoException;
    const why = code === undefined ? "a defect" : code;
    known = new ServiceError("InternalServerException", `The endpoint failed: ${why}.`);
  }
  return {
    status: known.status,
    headers: { "Content-Type": "application/json", "x-amzn-ErrorType": known.name },
    body: known.body,
  };
}

/** Sends an answer, spoilt where the plan says so. @returns body bytes that go out. */
function send(
  response: ServerResponse,
  answer: Answer,
  plan: FaultPlan | undefined,
  context: HandlerContext,
): number {
  const { body, buffer } = answer;
  const strike = plan?.strike;
  if (response.destroyed || strike === "lost") {
    if (buffer !== undefined) context.buffers.give(buffer);
    if (!response.destroyed) drop(response.req);
    return 0;
  }
  const { headers } = answer;
  let length = Buffer.byteLength(body);
  let whole = true;
  if (strike === "cut") {
    const kept = Math.min(plan?.rule?.bytes ?? Math.floor(length / 2), length);
    whole = plan?.rule?.clean === true;
    headers["Content-Length"] = String(whole ? kept : length);
    length = kept;
  } else {
    headers["Content-Length"] = String(length);
  }
  if (strike === "checksum" && "x-amz-Checksum" in headers) {
    headers["x-amz-Checksum"] = otherChecksum(headers["x-amz-Checksum"]!);
  }
  if (strike === "corrupt" && buffer !== undefined) {
    buffer.bytes[Math.floor(buffer.bytes.length / 3)]! ^= 0x01;
    buffer.seed = undefined;
  }
  headers["x-amzn-RequestId"] = randomUUID();
  response.writeHead(answer.status, headers);
  const sent = strike === "cut" ? Buffer.from(body as string).subarray(0, length) : body;
  if (whole) {
    // Once finished, the kernel has the bytes; a connection that breaks before keeps the buffer.
    if (buffer !== undefined) response.once("finish", () => context.buffers.give(buffer));
    response.end(sent);
  } else {
    response.write(sent, () => response.req.socket.destroy());
  }
  return length;
}

function otherChecksum(checksum: string): string {
  return (checksum.startsWith("A") ? "B" : "A") + checksum.slice(1);
}
