/**
 * The certificate authorities as Node's TLS wants them. Reading a machine's whole bundle costs tens of
 * milliseconds of processor time, so it is done once and not for each connection; and again when the file has
 * changed, because a mount can outlive the authorities it started with. Sessions are kept by host, so that
 * further connections need no full handshake.
 */
import { readFileSync, statSync } from "node:fs";
import { createSecureContext, type SecureContext } from "node:tls";
import { HttpError } from "../http-error.js";
import type { Trust } from "../transport.js";

/** Hosts whose sessions are kept. */
const MAX_SESSIONS = 32;

export class TrustContext {
  readonly #trust: Trust;
  readonly #sessions = new Map<string, Buffer>();
  #context: SecureContext | undefined;
  /** Of the file that the context was made from. */
  #version = "";

  constructor(trust: Trust) {
    this.#trust = trust;
  }

  /** @throws HttpError "certificate" if the file cannot be read and never could. */
  get(): SecureContext {
    const { file, extraPem } = this.#trust;
    try {
      const version = file === undefined ? "none" : versionOf(file);
      if (this.#context === undefined || version !== this.#version) {
        const ca: string[] = file === undefined ? [] : [readFileSync(file, "latin1")];
        if (extraPem !== undefined) ca.push(extraPem);
        this.#context = createSecureContext({ ca, minVersion: "TLSv1.2" });
        this.#version = version;
        this.#sessions.clear();
      }
    } catch (cause) {
      if (this.#context === undefined) throw unreadable(file, cause);
    }
    return this.#context as SecureContext;
  }

  session(host: string): Buffer | undefined {
    return this.#sessions.get(host);
  }

  keepSession(host: string, session: Buffer): void {
    this.#sessions.set(host, session);
    if (this.#sessions.size > MAX_SESSIONS) {
      this.#sessions.delete(this.#sessions.keys().next().value as string);
    }
  }
}

function versionOf(file: string): string {
  const { mtimeMs, size, ino } = statSync(file);
  return `${mtimeMs} ${size} ${ino}`;
}

function unreadable(file: string | undefined, cause: unknown): HttpError {
  const what = file === undefined ? "Node's own" : `in ${file}`;
  const message = `the certificate authorities ${what} cannot be read`;
  return new HttpError({ kind: "certificate", message }, { cause });
}
