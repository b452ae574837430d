/**
 * Debian's tinyproxy, as people have it: forwarding and tunnels, with a user and a password. This machine's
 * own address stands for the host, because loopback never goes through a proxy.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { until } from "../../support/scratch.js";
import { BLOCK, bytes, Framed, failure, get, type Scheme, type Subject } from "./subject.js";

/** An IPv4 address of this machine that is neither loopback nor link-local. */
function ownAddress(): string | undefined {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const isFit = (address: string) => !/^(?:127|169\.254)\./.test(address);
  return all.find(
    ({ family, internal, address }) => family === "IPv4" && !internal && isFit(address),
  )?.address;
}

interface Proxy {
  readonly port: number;
  log(): string;
}

/** @param users `BasicAuth` lines of its configuration. */
async function startTinyproxy(users: string): Promise<Proxy> {
  const folder = mkdtempSync(join(tmpdir(), "ebsmount-test-"));
  const port = await freePort();
  const configuration = `Port ${port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nLogLevel Connect\nMaxClients 50\n${users}\n`;
  writeFileSync(join(folder, "tinyproxy.conf"), configuration);
  const child = spawn("tinyproxy", ["-d", "-c", join(folder, "tinyproxy.conf")]);
  const exited = new Promise((resolve) => child.once("close", resolve));
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (part: Buffer) => {
      log += part;
    });
  }
  child.on("error", (error) => {
    log += String(error);
  });
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await exited;
    rmSync(folder, { recursive: true });
  });
  await until(`tinyproxy (apt-get install tinyproxy-bin) listens: ${log}`, () => canConnect(port));
  return { port, log: () => log };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => resolve(true));
    socket.on("connect", () => socket.destroy());
    socket.on("error", () => resolve(false));
  });
}

export function tinyproxy(subject: Subject): void {
  const own = ownAddress();
  describe.skipIf(own === undefined)("tinyproxy (needs an address of this machine's own)", () => {
    const host = own as string;
    const serve = (scheme: Scheme) =>
      subject.serve(
        scheme,
        async (exchange) =>
          exchange.respond(exchange.method === "PUT" ? await exchange.body : bytes(BLOCK, 1)),
        {
          host: "0.0.0.0",
          name: host,
          ...(scheme === "https" && {
            tls: { ...subject.keys.authority.leaf({ names: `IP:${host}` }) },
          }),
        },
      );

    test.each<[Scheme, string, string]>([
      ["http", "", ""],
      ["https", "", ""],
      ["http", "BasicAuth me p_ss-w0rd", "me:p_ss%2Dw0rd@"],
      ["https", "BasicAuth me p_ss-w0rd", "me:p_ss%2Dw0rd@"],
    ])("%s goes through it, %j", async (scheme, users, user) => {
      const proxy = await startTinyproxy(users);
      const server = await serve(scheme);
      const url = `http://${user}127.0.0.1:${proxy.port}`;
      const transport = await subject.transport({ proxies: { httpProxy: url, httpsProxy: url } });
      await Promise.all(
        Array.from({ length: 6 }, async (_, seed) => {
          const framed = new Framed(BLOCK);
          await get(transport, server.url, { target: framed.target });
          framed.expect(bytes(BLOCK, 1));
          const body = bytes(BLOCK, seed);
          const put = await get(transport, server.url, { method: "PUT", body });
          expect(Buffer.compare(put.body, body)).toBe(0);
        }),
      );
      expect(proxy.log()).toContain(host);
      const silent = await subject.transport({
        proxies: { httpProxy: url, httpsProxy: url, noProxy: host },
      });
      const before = proxy.log().length;
      expect((await get(silent, server.url)).status).toBe(200);
      expect(proxy.log().length).toBe(before);
    });

    test.each<Scheme>(["http", "https"])("%s without the user that it wants", async (scheme) => {
      const proxy = await startTinyproxy("BasicAuth me p_ss-w0rd");
      const server = await serve(scheme);
      for (const user of ["", "me:WRONG@"]) {
        const url = `http://${user}127.0.0.1:${proxy.port}`;
        const transport = await subject.transport({ proxies: { httpProxy: url, httpsProxy: url } });
        const sending = get(transport, server.url);
        const { status } = await sending.catch(() => ({ status: 407 }));
        expect([401, 407]).toContain(status);
        // tinyproxy asks for a missing user with 401, as if it were the host.
        if (status === 401) continue;
        const error = await failure(sending, "proxy");
        expect(error.message).not.toContain("WRONG");
      }
      expect(server.requests).toHaveLength(0);
    });

    test("a host that it cannot reach", async () => {
      const proxy = await startTinyproxy("");
      const url = `http://127.0.0.1:${proxy.port}`;
      const transport = await subject.transport({ proxies: { httpProxy: url, httpsProxy: url } });
      const { status } = await get(transport, `http://${host}:1/`);
      expect(status).toBeGreaterThanOrEqual(500);
      await failure(get(transport, `https://${host}:1/`), "proxy");
    });
  });
}
