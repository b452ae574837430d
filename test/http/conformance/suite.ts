/**
 * The contract of transport.ts as tests: real sockets on loopback, and servers that misbehave. Each transport
 * calls it from a test file of its own.
 */
import { describe } from "vitest";
import { aborts } from "./aborts.js";
import { bodies } from "./bodies.js";
import { connections } from "./connections.js";
import { heads } from "./heads.js";
import { lengths } from "./lengths.js";
import { names } from "./names.js";
import { proxies } from "./proxies.js";
import { requests } from "./requests.js";
import { stalls } from "./stalls.js";
import { type Make, Subject } from "./subject.js";
import { tinyproxy } from "./tinyproxy.js";
import { tls } from "./tls.js";
import { uploads } from "./uploads.js";

/**
 * @param name the value of EBSMOUNT_HTTP_TRANSPORT that chooses this transport.
 * @param make must give a transport that works in a thread that does other work too.
 */
export function transportConformance(name: string, make: Make): void {
  describe(`the transport ${name}`, () => {
    const subject = new Subject(name, make);
    requests(subject);
    bodies(subject);
    lengths(subject);
    heads(subject);
    uploads(subject);
    connections(subject);
    stalls(subject);
    aborts(subject);
    names(subject);
    tls(subject);
    proxies(subject);
    tinyproxy(subject);
  });
}
