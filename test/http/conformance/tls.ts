/** TLS is 1.2 at least, and the server's certificate is checked against the authorities that are trusted. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Trust } from "../../../src/http/transport.js";
import { bytes, Framed, failure, get, type Subject } from "./subject.js";

export function tls(subject: Subject): void {
  describe("TLS", () => {
    const trusts: readonly [string, () => Trust][] = [
      ["in the file", () => ({ file: subject.keys.authority.file })],
      [
        "beside the file",
        () => ({ file: subject.keys.foreign.file, extraPem: subject.keys.authority.pem }),
      ],
      [
        "in text alone, among Node's own",
        () => ({ extraPem: [...rootCertificates, subject.keys.authority.pem].join("\n") }),
      ],
      ["in a file of many", () => ({ file: manyFile(subject) })],
    ];
    test.each(trusts)("an authority %s is trusted", async (_what, trust) => {
      const server = await subject.serve("https", (exchange) => exchange.respond("x"));
      const transport = await subject.transport({ trust: trust() });
      for (let i = 0; i < 3; i += 1) {
        expect(
          (await get(transport, server.url, { headers: { connection: "close" } })).status,
        ).toBe(200);
      }
    });

    test.each<[string, () => Trust]>([
      ["another authority", () => ({ file: subject.keys.foreign.file })],
      ["another authority, in text", () => ({ extraPem: subject.keys.foreign.pem })],
      ["Node's own authorities", () => ({ extraPem: rootCertificates.join("\n") })],
    ])("%s is not enough, whatever NODE_TLS_REJECT_UNAUTHORIZED says", async (_what, trust) => {
      const server = await subject.serve("https", (exchange) => exchange.respond("x"));
      const transport = await subject.transport({ trust: trust() });
      process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
      onTestFinished(() => {
        delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
      });
      const error = await failure(get(transport, server.url), "certificate");
      expect(error.message).toContain(`localhost:${server.port}`);
      expect(error.message).toMatch(/certificate/);
      expect(server.requests).toHaveLength(0);
    });

    test("an expired certificate is refused", async () => {
      const expired = subject.keys.authority.leaf({ isExpired: true });
      const server = await subject.serve("https", (exchange) => exchange.respond("x"), {
        tls: { ...expired },
      });
      const error = await failure(get(await subject.transport(), server.url), "certificate");
      expect(error.message).toMatch(/expired/);
    });

    test.each([
      ["another name", "DNS:other.example", "localhost"],
      ["a name for an address", "DNS:localhost", "127.0.0.1"],
      ["another address", "IP:127.0.0.2", "127.0.0.1"],
      ["a wildcard for the name itself", "DNS:*.localhost", "localhost"],
    ])("a certificate of %s is refused", async (_what, certificateNames, name) => {
      const leaf = subject.keys.authority.leaf({ names: certificateNames });
      const server = await subject.serve("https", (exchange) => exchange.respond("x"), {
        tls: { ...leaf },
        name,
      });
      const error = await failure(get(await subject.transport(), server.url), "certificate");
      expect(error.message).toContain(name);
      expect(server.requests).toHaveLength(0);
    });

    test("a certificate of the address is accepted", async () => {
      const server = await subject.serve("https", (exchange) => exchange.respond("x"), {
        name: "127.0.0.1",
      });
      expect((await get(await subject.transport(), server.url)).status).toBe(200);
    });

    test.each(["TLSv1.2", "TLSv1.3"] as const)("%s alone is enough", async (version) => {
      const only = { minVersion: version, maxVersion: version };
      const server = await subject.serve(
        "https",
        (exchange) => exchange.respond(bytes(90_000, 1)),
        { tls: only },
      );
      const transport = await subject.transport();
      for (let i = 0; i < 3; i += 1) {
        const framed = new Framed(90_000);
        await get(transport, server.url, { target: framed.target });
        framed.expect(bytes(90_000, 1));
      }
    });

    test.each(["TLSv1", "TLSv1.1"] as const)("%s is refused", async (version) => {
      const old = {
        minVersion: "TLSv1",
        maxVersion: version,
        ciphers: "DEFAULT:@SECLEVEL=0",
      } as const;
      const server = await subject.serve("https", (exchange) => exchange.respond("x"), {
        tls: old,
      });
      await failure(get(await subject.transport(), server.url), "tls");
      expect(server.requests).toHaveLength(0);
    });

    test("https to a server that speaks plain HTTP", async () => {
      const server = await subject.serve("http", (exchange) => exchange.respond("x"), {
        accept: (socket) =>
          socket.once("data", () => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")) !== undefined,
      });
      const url = server.url.replace("http:", "https:");
      const error = await failure(get(await subject.transport(), url), "tls");
      expect(error.message).toContain(`:${server.port}`);
    });

    test("http to a server that speaks TLS", async () => {
      const server = await subject.serve("https", (exchange) => exchange.respond("x"));
      const url = server.url.replace("https:", "http:");
      const error = await failure(get(await subject.transport(), url), "protocol", "lost");
      expect(error.message).toContain(`:${server.port}`);
      expect(server.requests).toHaveLength(0);
    });

    test.each([
      ["ends", (socket: { end(): unknown }) => socket.end()],
      ["resets", (socket: { resetAndDestroy(): unknown }) => socket.resetAndDestroy()],
    ])("a server that %s during the handshake", async (_what, end) => {
      const server = await subject.serve("http", () => {}, {
        accept: (socket) => socket.once("data", () => end(socket)) !== undefined,
      });
      const url = server.url.replace("http:", "https:");
      await failure(get(await subject.transport(), url), "tls", "lost");
      expect(server.connections).toBe(1);
    });
  });
}

function manyFile(subject: Subject): string {
  const file = join(subject.folder, "many.pem");
  writeFileSync(file, `# many\n${rootCertificates.join("\n\n")}\n${subject.keys.authority.pem}`);
  return file;
}
