/** Signatures, and the names under which AWS refuses them: clients act on those. */
import { ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { expect, test } from "vitest";
import { checkClock } from "../../src/server/signature.js";
import { blockOf, clientOf, contentOf, get, put, rig, snapshotOf, start } from "./rig.js";

const credentials = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "s3cr3t/+=" };

function refused(name: string) {
  return { name, $metadata: { httpStatusCode: 403 } };
}

test("the right key may do everything", async () => {
  const { endpoint } = await rig({ credentials });
  const client = clientOf(endpoint.url, credentials);
  const id = await snapshotOf(client, { 0: 1 });
  const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
  expect(contentOf(await get(client, id, 0, Blocks![0]!.BlockToken!))).toBe(1);
});

test.each([
  ["InvalidSignatureException", { ...credentials, secretAccessKey: "guess" }],
  ["UnrecognizedClientException", { ...credentials, accessKeyId: "OTHER" }],
  ["UnrecognizedClientException", { ...credentials, sessionToken: "stray" }],
])("%s", async (name, wrong) => {
  const { endpoint } = await rig({ credentials });
  const client = clientOf(endpoint.url, wrong);
  await expect(start(client)).rejects.toMatchObject(refused(name));
  await expect(put(client, "snap-1", 0, blockOf(1))).rejects.toMatchObject(refused(name));
});

test("temporary credentials need their session token", async () => {
  const temporary = { ...credentials, sessionToken: "of/this+session==" };
  const { endpoint } = await rig({ credentials: temporary });
  await start(clientOf(endpoint.url, temporary));
  for (const wrong of [credentials, { ...credentials, sessionToken: "another" }]) {
    await expect(start(clientOf(endpoint.url, wrong))).rejects.toMatchObject(
      refused("UnrecognizedClientException"),
    );
  }
});

test.each([
  [undefined, "MissingAuthenticationTokenException"],
  ["Bearer abc", "IncompleteSignatureException"],
  ["AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE", "IncompleteSignatureException"],
  [headerFor("s3"), "InvalidSignatureException"],
])("authorization: %s", async (authorization, name) => {
  const { endpoint } = await rig({ credentials });
  const headers = { ...(authorization !== undefined && { authorization }), "x-amz-date": "now" };
  const response = await fetch(`${endpoint.url}/snapshots/snap-1/blocks`, { headers });
  expect(response.status).toBe(403);
  expect(response.headers.get("x-amzn-errortype")).toBe(name);
  // The front door spells the message's key otherwise than the service behind it.
  expect(await response.json()).toEqual({ __type: name, message: expect.any(String) });
});

function headerFor(service: string): string {
  const scope = `20261126/us-east-1/${service}/aws4_request`;
  return `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/${scope}, SignedHeaders=host, Signature=${"0".repeat(64)}`;
}

test("five minutes of difference between the clocks are allowed, either way", () => {
  const noon = Date.UTC(2026, 10, 26, 12);
  const sent = { "x-amz-date": "20261126T120000Z" };
  const minute = 60_000;
  for (const off of [0, -5, 5]) checkClock(sent, noon + off * minute);
  expect(() => checkClock(sent, noon + 5 * minute + 1000)).toThrow(
    "Signature expired: 20261126T120000Z is now earlier than 20261126T120001Z (20261126T120501Z - 5 min.)",
  );
  expect(() => checkClock(sent, noon - 6 * minute)).toThrow(
    "Signature not yet current: 20261126T120000Z is still later than 20261126T115900Z (20261126T115400Z + 5 min.)",
  );
  for (const headers of [{}, { "x-amz-date": "yesterday" }]) {
    expect(() => checkClock(headers, noon)).toThrow(/x-amz-date/);
  }
});
