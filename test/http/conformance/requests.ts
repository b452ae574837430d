/** What goes out: exactly what was asked for, nothing else, and nothing that cannot be sent. */
import { describe, expect, test } from "vitest";
import { failure, get, type Subject } from "./subject.js";

export function requests(subject: Subject): void {
  describe("requests", () => {
    test("has a description with its name and version", async () => {
      const { description } = await subject.transport();
      expect(description).toMatch(new RegExp(`^${subject.name} \\d+\\.\\d+\\.\\d+`));
    });

    test("path and query go out as they stand", async () => {
      const server = await subject.serve("http", (exchange) => exchange.respond(exchange.path));
      const transport = await subject.transport();
      const paths = [
        "/a/../b/./c",
        "/%2e%2E/%7e~!'()*",
        "//double//",
        "/?a=%2F&b=c+d&&e=%zz",
        "/a?b?c",
        "/snapshots/snap-1/blocks/5?blockToken=AAA%2B%2F%3D",
        '/a;b=c,d:e@f$g[h]{i}|j^k`l"m<n>',
      ];
      for (const path of paths) {
        const { body } = await get(transport, server.url + path);
        expect(Buffer.from(body).toString()).toBe(path);
      }
      const { body } = await get(transport, server.url);
      expect(Buffer.from(body).toString()).toBe("/");
    });

    test("headers go out as given, without any that were not asked for", async () => {
      const server = await subject.serve("http", (exchange) => exchange.respond("x"));
      const transport = await subject.transport();
      const given = {
        "X-Mixed-Case": "Value With Spaces",
        authorization: "AWS4-HMAC-SHA256 Credential=a/b, Signature=c",
        "x-empty": "",
        "x-latin": "caf\xe9",
        "user-agent": "ours/1.0",
      };
      await get(transport, server.url, { headers: { ...given, host: "signed.example:99" } });
      await get(transport, server.url, { headers: given });
      const [first, second] = server.requests;
      for (const [name, value] of Object.entries(given)) expect(first?.header(name)).toBe(value);
      expect(first?.head).toContain("X-Mixed-Case");
      expect(first?.header("host")).toBe("signed.example:99");
      expect(second?.header("host")).toBe(`127.0.0.1:${server.port}`);
      const names = [...(first?.head ?? "").matchAll(/^([\w-]+):/gm)].map((found) =>
        (found[1] as string).toLowerCase(),
      );
      const allowed = [
        ...Object.keys(given).map((name) => name.toLowerCase()),
        "host",
        "connection",
      ];
      expect(allowed).toEqual(expect.arrayContaining(names));
      expect(first?.head).toMatch(/^GET \/ HTTP\/1\.1\r\n/);
    });

    test.each([
      ["a header value with a line end", { "x-a": "b\r\nx-c: d" }],
      ["a header value with NUL", { "x-a": "b\0" }],
      ["a header value beyond Latin-1", { "x-a": "\u20ac" }],
      ["a header name with a space", { "x a": "b" }],
      ["a header name with a colon", { "x:a": "b" }],
      ["an empty header name", { "": "b" }],
    ])("%s is refused, and nothing is sent", async (_what, headers) => {
      const server = await subject.serve("http", (exchange) => exchange.respond("x"));
      const transport = await subject.transport();
      await failure(get(transport, server.url, { headers }), "invalid-request");
      expect(server.requests).toHaveLength(0);
    });

    test.each([
      "no-scheme/x",
      "ftp://x.example/",
      "http://",
      "http://a b/",
      "http://x/a b",
      "http://x/\n",
      "http://x:99999/",
      "socks5://x",
    ])("the URL %j is refused", async (url) => {
      await failure(get(await subject.transport(), url), "invalid-request");
    });

    test("redirects are not followed", async () => {
      const other = await subject.serve("http", (exchange) => exchange.respond("no"));
      const server = await subject.serve("http", (exchange) =>
        exchange.write(
          `HTTP/1.1 307 Moved\r\nLocation: ${other.url}/\r\nContent-Length: 2\r\n\r\nhi`,
        ),
      );
      const transport = await subject.transport();
      const { status, headers, body } = await get(transport, server.url);
      expect([status, headers.location]).toEqual([307, `${other.url}/`]);
      expect(Buffer.from(body).toString()).toBe("hi");
      expect(server.requests).toHaveLength(1);
      expect(other.connections).toBe(0);
    });

    test("cookies are not kept", async () => {
      const server = await subject.serve("http", (exchange) =>
        exchange.respond("x", "Set-Cookie: a=b; Path=/", "Set-Cookie: c=d"),
      );
      const transport = await subject.transport();
      expect((await get(transport, server.url)).headers["set-cookie"]).toBe("a=b; Path=/, c=d");
      await get(transport, server.url);
      expect(server.requests[1]?.head).not.toMatch(/cookie/i);
    });

    test("no error says a query, a user or a password", async () => {
      const secret = "?token=QUERYSECRET";
      const closed = await subject.serve("http", () => {});
      closed.stopListening();
      const garbage = await subject.serve("http", (exchange) => exchange.write("garbage\r\n\r\n"));
      const silent = await subject.serve("http", () => {});
      const long = await subject.serve("http", (exchange) => exchange.respond("long"));
      const transport = await subject.transport({
        proxies: { httpProxy: "http://PROXYUSER:PROXYSECRET@127.0.0.1:1" },
      });
      const failures = [
        get(transport, `${closed.url}/a${secret}`),
        get(transport, `${garbage.url}/a${secret}`),
        get(transport, `${silent.url}/a${secret}`, { stallMs: 100 }),
        get(transport, `${long.url}/a${secret}`, { maxBodyBytes: 1 }),
        get(transport, `http://service.example/a${secret}`),
        get(transport, `nonsense://USER:PASSWORD@x.example/a${secret}`),
        get(transport, `http://USER:PASSWORD@x.example:x/a${secret}`),
      ];
      for (const { status, ...result } of await Promise.allSettled(failures)) {
        expect(status).toBe("rejected");
        const error = (result as PromiseRejectedResult).reason as Error;
        expect(error.message).not.toMatch(/SECRET|USER|PASSWORD/);
        expect(JSON.stringify(error)).not.toMatch(/SECRET|USER|PASSWORD/);
      }
    });
  });
}
