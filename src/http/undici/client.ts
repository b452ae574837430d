/**
 * undici's client over a connection that is there already. undici connects by itself and again when a
 * connection ends; here each client has the one socket that it was given, because which connections there
 * are, and what is sent again, is decided in this folder.
 *
 * undici is loaded on first use: it takes 160 ms, and a machine with libcurl does without it.
 */
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import type { Client } from "undici";
import { MAX_HEAD_BYTES } from "../transport.js";

type Undici = typeof import("undici");

let undici: Undici | undefined;

function load(): Undici {
  undici ??= createRequire(import.meta.url)("undici") as Undici;
  return undici;
}

/** How long an idle connection is kept, ms; a firewall on the way may forget one after a few minutes. */
const MAX_IDLE_MS = 60_000;

/** `undici 7.30.2`; does not load it. */
export function describeUndici(): string {
  const { version } = createRequire(import.meta.url)("undici/package.json") as { version: string };
  return `undici ${version}`;
}

/** The client's socket ended before the request was written. */
export class ConnectionGone extends Error {
  constructor() {
    super("the connection has ended");
  }
}

/** @param socket connected, with TLS on top where it is needed. */
export function clientOver(socket: Socket): Client {
  let isGiven = false;
  // The origin is only a name here. As https: it would make undici compare server names and connect again.
  return new (load().Client)("http://connection", {
    connect: (_options, callback) => {
      // Not at once: undici does not notice a socket that is there before its own call has returned.
      queueMicrotask(() => {
        if (isGiven) callback(new ConnectionGone(), null);
        else callback(null, socket);
        isGiven = true;
      });
    },
    pipelining: 1,
    allowH2: false,
    maxHeaderSize: MAX_HEAD_BYTES + 1,
    keepAliveTimeout: MAX_IDLE_MS,
    keepAliveMaxTimeout: MAX_IDLE_MS,
    // The stall limit is kept for the whole request, in stall-watch.ts.
    headersTimeout: 0,
    bodyTimeout: 0,
  });
}
