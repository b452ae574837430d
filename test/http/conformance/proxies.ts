/** Proxies, and what they may do wrong. The hosts' names lead nowhere: only the proxy knows where they are. */
import { connect as connectTcp } from "node:net";
import { describe, expect, test } from "vitest";
import { fakeNames } from "./fake-names.js";
import { fullListener } from "./full-listener.js";
import {
  chunked,
  type Exchange,
  type HostileServer,
  pause,
  response,
  type Script,
} from "./hostile-server.js";
import {
  BLOCK,
  bytes,
  Framed,
  failure,
  get,
  type Scheme,
  STALL_MS,
  type Subject,
} from "./subject.js";

const USER = "me:p%40ss%20word";
const AUTHORIZATION = `Basic ${Buffer.from("me:p@ss word").toString("base64")}`;
const ERROR_PAGE = "<html><body>PROXYPAGE</body></html>";

/** A proxy that connects every host to one server. */
function tunnelTo(server: HostileServer): Script {
  return ({ socket }) => {
    const onward = connectTcp(server.port, "127.0.0.1");
    onward.on("error", () => socket.destroy());
    socket.on("close", () => onward.destroy());
    socket.removeAllListeners("data");
    socket.write("HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n");
    socket.pipe(onward).pipe(socket);
  };
}

export function proxies(subject: Subject): void {
  const through = (proxy: HostileServer, user = "") => {
    const url = proxy.url.replace("://", user === "" ? "://" : `://${user}@`);
    return { proxies: { httpProxy: url, httpsProxy: url } };
  };
  const serviceKeys = () => subject.keys.authority.leaf({ names: "DNS:service.example" });

  describe.each<Scheme>(["http", "https"])("proxies over %s", (scheme) => {
    test("forward http, with the whole URL, the host's name and the user", async () => {
      const proxy = await subject.serve(scheme, (exchange) => exchange.respond(bytes(BLOCK, 1)));
      const transport = await subject.transport(through(proxy, USER));
      for (const host of ["service.example", "other.example:8080", "service.example"]) {
        const framed = new Framed(BLOCK);
        await get(transport, `http://${host}/a/../b?x=%2F`, { target: framed.target });
        framed.expect(bytes(BLOCK, 1));
      }
      const [first, second] = proxy.requests;
      expect(first?.head).toMatch(
        /^GET http:\/\/service\.example\/a\/\.\.\/b\?x=%2F HTTP\/1\.1\r\n/,
      );
      expect(first?.header("host")).toBe("service.example");
      expect(first?.header("proxy-authorization")).toBe(AUTHORIZATION);
      expect(second?.head).toMatch(/^GET http:\/\/other\.example:8080\//);
    });

    test("tunnel https, and the user is for the proxy only", async () => {
      const server = await subject.serve(
        "https",
        async (exchange) => exchange.respond(await exchange.body),
        {
          tls: { ...serviceKeys() },
        },
      );
      const proxy = await subject.serve(scheme, tunnelTo(server));
      const transport = await subject.transport(through(proxy, USER));
      for (let seed = 0; seed < 3; seed += 1) {
        const framed = new Framed(BLOCK);
        const body = bytes(BLOCK, seed);
        await get(transport, "https://service.example/x?y", {
          method: "PUT",
          body,
          target: framed.target,
        });
        framed.expect(body);
      }
      expect([proxy.connections, server.connections]).toEqual([1, 1]);
      const [asked] = proxy.requests;
      expect(asked?.head).toMatch(/^CONNECT service\.example:443 HTTP\/1\.1\r\n/);
      expect(asked?.header("host")).toMatch(/^service\.example(?::443)?$/);
      expect(asked?.header("proxy-authorization")).toBe(AUTHORIZATION);
      for (const { head } of server.requests) {
        expect(head).toMatch(/^PUT \/x\?y HTTP/);
        expect(head).not.toMatch(/proxy/i);
      }
    });

    test.each([
      ["status 403 with a page", response(403, ERROR_PAGE)],
      [
        "status 502 in chunks",
        Buffer.concat([
          Buffer.from("HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n"),
          chunked(Buffer.from(ERROR_PAGE), [5]),
        ]),
      ],
      ["status 503 of HTTP/1.0", Buffer.from(`HTTP/1.0 503 Busy\r\n\r\n${ERROR_PAGE}`)],
      ["status 407", response(407, ERROR_PAGE, 'Proxy-Authenticate: Basic realm="x"')],
      [
        "a redirect",
        Buffer.from(
          "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n",
        ),
      ],
      ["no HTTP", Buffer.from("SSH-2.0-OpenSSH\r\n\r\n")],
      ["nothing", Buffer.alloc(0)],
    ])("that refuse to tunnel: %s", async (what, refusal) => {
      const proxy = await subject.serve(scheme, async (exchange) => {
        await exchange.write(refusal);
        exchange.socket.end();
      });
      const transport = await subject.transport(through(proxy, USER));
      const error = await failure(get(transport, "https://service.example/"), "proxy");
      expect(error.proxy).toBe(proxy.url.split("/")[2]);
      expect(error.host).toBe("service.example:443");
      expect(error.message).toContain(String(error.proxy));
      const status = /\d{3}/.exec(what)?.[0];
      if (status !== undefined) expect(error.message).toContain(status);
      expect(error.message).not.toMatch(/p@ss|word:|PROXYPAGE/);
    });

    test("that want another user for http: status 407", async () => {
      const proxy = await subject.serve(scheme, (exchange) =>
        exchange.write(response(407, ERROR_PAGE)),
      );
      const transport = await subject.transport(through(proxy, USER));
      const error = await failure(get(transport, "http://service.example/"), "proxy");
      expect(error.message).toMatch(/407/);
      expect(error.message).not.toMatch(/p@ss|p%40ss/);
    });

    test.each([403, 502])("whose own page %s for http is a response", async (status) => {
      const proxy = await subject.serve(scheme, (exchange) =>
        exchange.write(response(status, ERROR_PAGE)),
      );
      const framed = new Framed(BLOCK);
      const transport = await subject.transport(through(proxy));
      const got = await get(transport, "http://service.example/", { target: framed.target });
      expect([got.status, Buffer.from(got.body).toString()]).toEqual([status, ERROR_PAGE]);
      framed.expectFrame();
    });

    test("that respond to CONNECT slowly, and never", async () => {
      const server = await subject.serve("https", (exchange) => exchange.respond("x"), {
        tls: { ...serviceKeys() },
      });
      const tunnel = tunnelTo(server);
      const proxy = await subject.serve(scheme, async (exchange: Exchange) => {
        if (exchange.path.startsWith("never")) return;
        await pause(STALL_MS / 2);
        await tunnel(exchange);
      });
      const transport = await subject.transport(through(proxy));
      const stallMs = STALL_MS;
      expect((await get(transport, "https://service.example/", { stallMs })).status).toBe(200);
      const error = await failure(
        get(transport, "https://never.example/", { stallMs }),
        "stalled",
        "proxy",
      );
      expect(error.message).toContain(proxy.url.split("/")[2] as string);
    });
  });

  describe("proxies", () => {
    test("that cannot be reached", async () => {
      const port = await fullListener("127.0.0.1");
      for (const [url, host] of [
        ["http://127.0.0.1:1", "127.0.0.1:1"],
        [`http://127.0.0.1:${port}`, `127.0.0.1:${port}`],
      ] as const) {
        const transport = await subject.transport({ proxies: { httpProxy: url, httpsProxy: url } });
        for (const target of ["http://service.example/", "https://service.example/"]) {
          const error = await failure(get(transport, target, { stallMs: STALL_MS }), "proxy");
          expect(error.message).toContain(host);
          expect(error.proxy).toBe(host);
        }
      }
    });

    test("whose name is not found", async () => {
      fakeNames({ "no-proxy-here.example": "ENOTFOUND" });
      const url = "http://no-proxy-here.example:3128";
      const transport = await subject.transport({ proxies: { httpsProxy: url } });
      const error = await failure(get(transport, "https://service.example/"), "proxy", "name");
      expect(error.message).toContain("no-proxy-here.example");
    });

    test("whose own certificate is not trusted", async () => {
      const tls = { ...subject.keys.foreign.leaf() };
      const proxy = await subject.serve("https", (exchange) => exchange.respond("x"), { tls });
      const transport = await subject.transport(through(proxy, USER));
      for (const url of ["http://service.example/", "https://service.example/"]) {
        await failure(get(transport, url), "certificate", "proxy");
      }
      expect(proxy.requests).toHaveLength(0);
    });

    test("through which the host's certificate is checked", async () => {
      const server = await subject.serve("https", (exchange) => exchange.respond("x"));
      const proxy = await subject.serve("http", tunnelTo(server));
      const transport = await subject.transport(through(proxy));
      const error = await failure(get(transport, "https://service.example/"), "certificate");
      expect(error.message).toContain("service.example");
      expect(server.requests).toHaveLength(0);
    });

    test("are not used for this machine, nor for what NO_PROXY names", async () => {
      const name = "internal.corp.example";
      fakeNames({ [name]: ["127.0.0.1"] });
      const proxy = await subject.serve("http", (exchange) => exchange.respond("proxy"));
      const server = await subject.serve("http", (exchange) => exchange.respond("direct"));
      const settings = { proxies: { httpProxy: proxy.url, noProxy: "10.0.0.0/8,.corp.example" } };
      const transport = await subject.transport(settings);
      const text = async (url: string) => Buffer.from((await get(transport, url)).body).toString();
      expect(await text(server.url)).toBe("direct");
      expect(await text(`http://localhost:${server.port}/`)).toBe("direct");
      expect(await text(`http://${name}:${server.port}/`)).toBe("direct");
      expect(await text("http://service.example/")).toBe("proxy");
      expect(proxy.requests).toHaveLength(1);
    });

    test("are not taken from the environment", async () => {
      const proxy = await subject.serve("http", (exchange) => exchange.respond("proxy"));
      const name = "direct.example";
      fakeNames({ [name]: ["127.0.0.1"] });
      const server = await subject.serve("http", (exchange) => exchange.respond("direct"));
      const names = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
      const transport = await withEnvironment(names, proxy.url, () => subject.transport());
      await withEnvironment(names, proxy.url, async () => {
        const { body } = await get(transport, `http://${name}:${server.port}/`);
        expect(Buffer.from(body).toString()).toBe("direct");
      });
    });

    test("with a URL that cannot be used end the request", async () => {
      const transport = await subject.transport({
        proxies: { httpsProxy: "socks5://me:secret@x:1" },
      });
      const error = await failure(get(transport, "https://service.example/"), "invalid-request");
      expect(error.message).toContain("HTTPS_PROXY");
      expect(error.message).not.toContain("secret");
    });
  });
}

async function withEnvironment<T>(
  names: readonly string[],
  value: string,
  run: () => Promise<T>,
): Promise<T> {
  const before = names.map((name) => [name, process.env[name]] as const);
  for (const name of names) process.env[name] = value;
  try {
    return await run();
  } finally {
    for (const [name, old] of before) {
      if (old === undefined) delete process.env[name];
      else process.env[name] = old;
    }
  }
}
