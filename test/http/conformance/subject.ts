/**
 * What all conformance tests use: the transport under test, the servers' certificates, requests with targets
 * that have a frame around them, and what every error must look like.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TlsOptions } from "node:tls";
import { afterAll, beforeAll, expect, onTestFinished } from "vitest";
import { HttpError, type HttpErrorKind } from "../../../src/http/http-error.js";
import type {
  HttpRequest,
  HttpResponse,
  HttpTransport,
  TransportSettings,
} from "../../../src/http/transport.js";
import { Authority, type Leaf } from "../../support/certificates.js";
import { randomSource } from "../../support/random.js";
import { type HostileServer, type Script, type ServeOptions, serve } from "./hostile-server.js";

export type Make = (settings: TransportSettings) => HttpTransport | Promise<HttpTransport>;
export type Scheme = "http" | "https";

export const BLOCK = 512 * 1024;
/** Long enough for a machine under load, short enough to wait for. */
export const STALL_MS = 600;

/** Certificates of the servers; localhost and the loopback addresses are their names. */
export interface Keys {
  readonly authority: Authority;
  readonly foreign: Authority;
  readonly good: Leaf;
}

export class Subject {
  readonly name: string;
  readonly #make: Make;
  #folder = "";
  #keys: Keys | undefined;

  /** To be made inside a describe block. */
  constructor(name: string, make: Make) {
    this.name = name;
    this.#make = make;
    beforeAll(() => {
      this.#folder = mkdtempSync(join(tmpdir(), "ebsmount-test-"));
      const authority = new Authority(this.#folder, "authority");
      const foreign = new Authority(this.#folder, "foreign");
      this.#keys = { authority, foreign, good: authority.leaf() };
    });
    afterAll(() => rmSync(this.#folder, { recursive: true, force: true }));
  }

  get folder(): string {
    return this.#folder;
  }

  get keys(): Keys {
    return this.#keys as Keys;
  }

  /** A transport that trusts the servers; closed when the test ends. */
  async transport(settings: Partial<TransportSettings> = {}): Promise<HttpTransport> {
    const trust = { file: this.keys.authority.file };
    const transport = await this.#make({ maxConnections: 8, trust, proxies: {}, ...settings });
    onTestFinished(() => transport.close());
    return transport;
  }

  serve(scheme: Scheme, script: Script, options: ServeOptions = {}): Promise<HostileServer> {
    return serve(script, scheme === "http" ? options : { ...options, tls: this.tls(options.tls) });
  }

  tls(options: TlsOptions = {}): TlsOptions {
    return { ...this.keys.good, ...options };
  }
}

export function request(url: string, rest: Partial<HttpRequest> = {}): HttpRequest {
  return { method: "GET", url, headers: {}, maxBodyBytes: 1024 * 1024, stallMs: 10_000, ...rest };
}

export function get(
  transport: HttpTransport,
  url: string,
  rest: Partial<HttpRequest> = {},
  signal?: AbortSignal,
): Promise<HttpResponse> {
  return transport.send(request(url, rest), signal);
}

const FRAME = 4096;
const FRAME_BYTE = 0xa5;

/** Memory for a body, in shared memory, with a frame around it that must never change. */
export class Framed {
  readonly target: Uint8Array;
  readonly #all: Uint8Array;

  constructor(length: number) {
    this.#all = new Uint8Array(new SharedArrayBuffer(length + 2 * FRAME)).fill(FRAME_BYTE);
    this.target = this.#all.subarray(FRAME, FRAME + length);
    this.target.fill(0xee);
  }

  /** The frame is whole, and the body what it should be. */
  expect(body: Uint8Array): void {
    this.expectFrame();
    expect(Buffer.compare(this.target, body), "the body differs").toBe(0);
  }

  expectFrame(): void {
    const { length } = this.target;
    const frame = [this.#all.subarray(0, FRAME), this.#all.subarray(FRAME + length)];
    for (const side of frame) expect(side.every((byte) => byte === FRAME_BYTE)).toBe(true);
  }
}

/** Repeatable bytes; the last one is never 0. */
export function bytes(length: number, seed: number): Buffer {
  const random = randomSource(seed);
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i += 1) words[i] = random() * 2 ** 32;
  const all = Buffer.from(words.buffer, 0, length);
  if (length > 0 && all[length - 1] === 0) all[length - 1] = 1;
  return all;
}

/** The error that a request ends with, checked for what every error must be. */
export async function failure(
  sending: Promise<unknown>,
  ...kinds: readonly HttpErrorKind[]
): Promise<HttpError> {
  const error = await sending.then(
    (result) => {
      throw new Error(`it succeeded: ${JSON.stringify(result)?.slice(0, 200)}`);
    },
    (thrown: unknown) => thrown as HttpError,
  );
  expect(error, String((error as Error).stack)).toBeInstanceOf(HttpError);
  const { kind, message } = error;
  expect(kinds, `${kind}: ${message}`).toContain(kind);
  expect(message).toMatch(/^[a-z][^\n\r]{8,}[^.\s]$/);
  // Codes are no words.
  expect(message).not.toMatch(/\bE[A-Z]{4,}\b|CURLE|UND_ERR|HPE_|ERR_|undefined|\[object/);
  expect(message.length).toBeLessThan(600);
  if (kind !== "invalid-request") expect(error.host, message).toMatch(/^(?:\[.*\]|[^:]+):\d+$/);
  return error;
}
