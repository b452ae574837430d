/** From a host's name to a connection: IPv6, several addresses of which some do not work, and none. */
import { describe, expect, test } from "vitest";
import { fakeNames } from "./fake-names.js";
import { fullListener } from "./full-listener.js";
import { bytes, Framed, failure, get, type Scheme, STALL_MS, type Subject } from "./subject.js";

let count = 0;

/** Names are kept for a minute: each test has its own. */
function newName(): string {
  count += 1;
  return `host-${process.pid}-${count}.example`;
}

export function names(subject: Subject): void {
  describe("names and addresses", () => {
    test.each<Scheme>(["http", "https"])("an IPv6 address in a URL, over %s", async (scheme) => {
      const server = await subject.serve(scheme, (exchange) => exchange.respond(bytes(50_000, 1)), {
        host: "::1",
        name: "::1",
      });
      const framed = new Framed(50_000);
      const transport = await subject.transport();
      await get(transport, `${server.url}/x`, { target: framed.target });
      framed.expect(bytes(50_000, 1));
      expect(server.requests[0]?.header("host")).toBe(`[::1]:${server.port}`);
      server.stopListening();
    });

    test("a name whose first addresses refuse", async () => {
      const server = await subject.serve("http", (exchange) => exchange.respond("x"));
      const name = newName();
      fakeNames({ [name]: ["::1", "127.0.0.2", "127.0.0.3", "127.0.0.1"] });
      const transport = await subject.transport();
      const url = `http://${name}:${server.port}/`;
      expect((await get(transport, url)).status).toBe(200);
      expect(server.requests[0]?.header("host")).toBe(`${name}:${server.port}`);
    });

    test("a name whose first family does not respond", async () => {
      const server = await subject.serve("http", (exchange) => exchange.respond("x"));
      await fullListener("::1", server.port);
      const name = newName();
      fakeNames({ [name]: ["::1", "127.0.0.1"] });
      const start = performance.now();
      const transport = await subject.transport();
      expect((await get(transport, `http://${name}:${server.port}/`)).status).toBe(200);
      expect(performance.now() - start).toBeLessThan(2000);
    });

    test("a name that is not found, for whatever reason", async () => {
      const [missing, dead] = [newName(), newName()];
      fakeNames({ [missing]: "ENOTFOUND", [dead]: "EAI_AGAIN" });
      const transport = await subject.transport();
      for (const name of [missing, dead]) {
        const error = await failure(get(transport, `https://${name}/x`), "name");
        expect(error.message).toContain(name);
      }
    });

    test("a name that is not found in time", async () => {
      const name = newName();
      fakeNames({ [name]: new Promise(() => {}) });
      const transport = await subject.transport();
      const stalled = get(transport, `http://${name}/`, { stallMs: STALL_MS });
      expect((await failure(stalled, "name")).message).toContain(name);
      const controller = new AbortController();
      const aborted = get(transport, `http://${name}/`, {}, controller.signal);
      setTimeout(() => controller.abort(), 20);
      await failure(aborted, "aborted");
      const closed = failure(get(transport, `http://${name}/`), "closed");
      await transport.close();
      await closed;
    });

    test("addresses that all refuse", async () => {
      const name = newName();
      fakeNames({ [name]: ["127.0.0.2", "::1"] });
      const transport = await subject.transport();
      const error = await failure(get(transport, `http://${name}:1/`), "unreachable");
      expect(error.message).toContain(`${name}:1`);
      expect(error.message).toContain("refused");
      const literal = await failure(get(transport, "http://[::1]:1/"), "unreachable");
      expect(literal.message).toContain("[::1]:1");
    });

    test("a name that has moved is looked up again", async () => {
      const server = await subject.serve("http", (exchange) => exchange.respond("x"));
      const name = newName();
      const url = `http://${name}:${server.port}/`;
      fakeNames({ [name]: ["127.0.0.2"] });
      const transport = await subject.transport();
      await failure(get(transport, url), "unreachable");
      fakeNames({ [name]: ["127.0.0.1"] });
      expect((await get(transport, url)).status).toBe(200);
    });
  });
}
