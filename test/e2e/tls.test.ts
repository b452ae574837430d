/**
 * Everyone's service is behind TLS: the whole way of a block, read and written, through a TLS front
 * with a certificate of its own.
 */
import { readFileSync } from "node:fs";
import { request as plainRequest } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import { MIB } from "../../src/common/sizes.js";
import { Rig } from "../support/rig.js";
import { must } from "../support/scratch.js";

let rig: Rig;
let url: string;
let certificate: string;

beforeAll(async () => {
  rig = await Rig.start();
  certificate = rig.scratch.file("certificate.pem");
  const key = rig.scratch.file("key.pem");
  await must("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
    ...["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
    ...["-keyout", key, "-out", certificate],
  ]);
  const behind = new URL(rig.endpoint.url);
  const front = createServer(
    { key: readFileSync(key), cert: readFileSync(certificate) },
    (incoming, outgoing) => {
      const { method, url: path, headers } = incoming;
      const onward = plainRequest(
        { host: behind.hostname, port: behind.port, method, path, headers },
        (answer) => {
          outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
          answer.pipe(outgoing);
        },
      );
      onward.on("error", () => outgoing.destroy());
      incoming.pipe(onward);
    },
  );
  await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
  rig.scratch.undo(() => {
    front.closeAllConnections();
    return new Promise((resolve) => front.close(resolve));
  });
  url = `https://localhost:${(front.address() as AddressInfo).port}`;
});
afterAll(() => rig.clean());

it("imports, mounts, reads, writes and exports over TLS", async () => {
  const image = await rig.image("disk.img", 1024 * MIB, [7 * MIB + 5, 30 * MIB]);
  const env = { EBSMOUNT_ENDPOINT_URL: url, NODE_EXTRA_CA_CERTS: certificate };
  const snapshot = (await rig.must(["import", image], { env })).trim();
  const place = await rig.mount(["mount", "--rw", snapshot], "tls", env);
  await must("cmp", [image, `${place}/${snapshot}.img`]);
  for (const target of [image, `${place}/${snapshot}.img`]) {
    const args = ["if=/etc/services", `of=${target}`, "bs=1000", "seek=9000", "conv=notrunc"];
    await must("dd", [...args, "status=none"]);
  }
  const changed = (await rig.must(["unmount", place], { env })).trim();
  await rig.must(["export", changed, rig.scratch.file("out.img")], { env });
  await must("cmp", [image, rig.scratch.file("out.img")]);
});

it("says so where the certificate is not trusted", async () => {
  const { status, stderr } = await rig.run(
    ["export", "--io-timeout", "2s", "snap-0123", rig.scratch.file("no.img")],
    { env: { EBSMOUNT_ENDPOINT_URL: url } },
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(/certificate/);
});
