/** Roles: who is asked, where, and what is done where they do not respond or this machine's clock is wrong. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { PlaceOptions } from "../../src/aws/settings.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { EbsError } from "../../src/ebs/errors.js";
import type { SdkEbs } from "../../src/ebs/sdk-ebs.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";
import { AwsHome } from "../support/aws-home.js";
import { StsStub } from "../support/sts-stub.js";

const SNAPSHOT = "snap-0123456789abcdef0" as SnapshotId;
const ROLE = "arn:aws:iam::123456789012:role/r";
const SOURCE = "[source]\naws_access_key_id = SOURCEKEY\naws_secret_access_key = secret\n";

let home: AwsHome;
let sts: StsStub;
const apis: SdkEbs[] = [];

beforeEach(async () => {
  sts = await StsStub.start();
  home = new AwsHome();
});

afterEach(async () => {
  for (const api of apis.splice(0)) await api.close();
  home.remove();
  await sts.close();
});

function open(options: PlaceOptions = {}, ioTimeoutMs = 10_000): SdkEbs {
  const api = createEbsApi({ profile: "x", ...options, threads: 0, ioTimeoutMs });
  apis.push(api);
  return api;
}

/** Lines of the profile x, which goes to the stub for everything. */
function configure(lines: string, more = ""): void {
  home.config(`[profile x]\nregion = eu-west-3\nendpoint_url = ${sts.url}\n${lines}\n${more}`);
}

async function failure(promise: Promise<unknown>): Promise<EbsError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(EbsError);
  return error as EbsError;
}

describe("who is asked", () => {
  test("a role with the keys of a source_profile, at the profile's endpoint and region", async () => {
    // Neither of these counts for --profile x.
    process.env.AWS_PROFILE = "other";
    const other =
      "[profile other]\nendpoint_url = http://127.0.0.1:1\n[default]\nregion = us-east-1\n";
    configure(`role_arn = ${ROLE}\nsource_profile = source\nexternal_id = a b=c`, other);
    home.credentials(SOURCE);
    await open().listSnapshotBlocks(SNAPSHOT);
    expect(sts.calls).toHaveLength(1);
    const [call] = sts.calls;
    expect(call).toMatchObject({ action: "AssumeRole", key: "SOURCEKEY", region: "eu-west-3" });
    expect(call?.parameters).toMatchObject({ RoleArn: ROLE, ExternalId: "a b=c" });
    expect(call?.parameters.RoleSessionName).toMatch(/^ebsmount-\d+$/);
  });

  test("a chain of roles, the last with the environment's keys", async () => {
    const middle = `[profile "in between"]\nrole_arn = ${ROLE}-1\ncredential_source = Environment\n`;
    configure(`role_arn = ${ROLE}-2\nsource_profile = in between`, middle);
    Object.assign(process.env, { AWS_ACCESS_KEY_ID: "ENVKEY", AWS_SECRET_ACCESS_KEY: "secret" });
    await open().listSnapshotBlocks(SNAPSHOT);
    expect(sts.calls.map(({ key, parameters }) => [key, parameters.RoleArn])).toEqual([
      ["ENVKEY", `${ROLE}-1`],
      ["ROLEKEY1", `${ROLE}-2`],
    ]);
  });

  test("a profile that is its own source", async () => {
    configure(`role_arn = ${ROLE}\nsource_profile = x`);
    home.credentials("[x]\naws_access_key_id = OWNKEY\naws_secret_access_key = secret\n");
    await open().listSnapshotBlocks(SNAPSHOT);
    expect(sts.calls[0]?.key).toBe("OWNKEY");
  });

  test("a role for a web identity, of a profile and of the environment", async () => {
    const token = home.write("token", "web.identity.token\n");
    configure(`role_arn = ${ROLE}\nweb_identity_token_file = ${token}\nrole_session_name = me`);
    await open().listSnapshotBlocks(SNAPSHOT);
    expect(sts.calls[0]).toMatchObject({
      action: "AssumeRoleWithWebIdentity",
      key: undefined,
      parameters: { RoleArn: ROLE, RoleSessionName: "me", WebIdentityToken: "web.identity.token" },
    });
    const { PATH = "" } = process.env;
    home.setEnvironment({
      PATH,
      AWS_REGION: "eu-west-3",
      AWS_ENDPOINT_URL: sts.url,
      AWS_WEB_IDENTITY_TOKEN_FILE: token,
      AWS_ROLE_ARN: `${ROLE}-2`,
    });
    const api = createEbsApi({ threads: 0 });
    apis.push(api);
    await api.listSnapshotBlocks(SNAPSHOT);
    expect(sts.calls[1]?.parameters.RoleArn).toBe(`${ROLE}-2`);
  });

  test("AWS_ENDPOINT_URL_STS is for STS alone", async () => {
    const elsewhere = await StsStub.start();
    try {
      configure(`role_arn = ${ROLE}\nsource_profile = source`);
      home.credentials(SOURCE);
      process.env.AWS_ENDPOINT_URL_STS = elsewhere.url;
      await failure(open().listSnapshotBlocks(SNAPSHOT));
      expect(elsewhere.calls).toHaveLength(1);
      expect(sts.calls).toHaveLength(0);
      expect(sts.lists).toBe(1);
    } finally {
      await elsewhere.close();
    }
  });
});

describe("where STS does not help", () => {
  beforeEach(() => home.credentials(SOURCE));

  test("out of reach: the sentence names STS, not the EBS endpoint", async () => {
    configure(`role_arn = ${ROLE}\nsource_profile = source`);
    const gone = await StsStub.start();
    const { port } = gone;
    await gone.close();
    process.env.AWS_ENDPOINT_URL_STS = `http://127.0.0.1:${port}`;
    const error = await failure(open().listSnapshotBlocks(SNAPSHOT));
    expect(error.message).toContain(`cannot connect to 127.0.0.1:${port}: connection refused`);
    expect(error.message).toContain('the AWS profile "x"');
    expect(error.message).not.toContain(String(sts.port));
    expect(error.errno).toBe("ETIMEDOUT");
    expect(sts.lists).toBe(0);
  });

  test("AWS's own host, with a proxy between that refuses or is not there: both are named", async () => {
    const proxy = createServer().on("connect", (_request, socket) => {
      socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    try {
      const { port } = proxy.address() as AddressInfo;
      home.config(`[profile x]\nregion = eu-west-3\nrole_arn = ${ROLE}\nsource_profile = source\n`);
      process.env.HTTPS_PROXY = `http://127.0.0.1:${port}`;
      const error = await failure(open().listSnapshotBlocks(SNAPSHOT));
      expect(error.message).toContain(`the proxy 127.0.0.1:${port}`);
      expect(error.message).toContain("connect to sts.eu-west-3.amazonaws.com:443");
      expect(error.message).toContain("check HTTPS_PROXY");
      process.env.HTTPS_PROXY = "http://127.0.0.1:1";
      const gone = await failure(open().listSnapshotBlocks(SNAPSHOT));
      expect(gone.message).toMatch(/cannot connect to the proxy 127.0.0.1:1/);
      expect(gone.message).toContain("on the way to sts.eu-west-3.amazonaws.com:443");
    } finally {
      await new Promise((resolve) => proxy.close(resolve));
    }
  });

  test("refused: at once, with STS's words", async () => {
    configure(`role_arn = ${ROLE}\nsource_profile = source`);
    sts.refusals.push([403, "AccessDenied"]);
    const error = await failure(open().listSnapshotBlocks(SNAPSHOT));
    expect(error.message).toContain(
      `the role "${ROLE}" of the AWS profile "x" could not be assumed`,
    );
    expect(error.message).toContain("it says AccessDenied");
    expect(error).toMatchObject({ errno: "EACCES", attempts: 1 });
    expect(sts.calls).toHaveLength(1);
  });

  test("what passes by itself is waited for", async () => {
    configure(`role_arn = ${ROLE}\nsource_profile = source`);
    sts.refusals.push([503, "ServiceUnavailable"], [400, "Throttling"], [500, "InternalFailure"]);
    await open().listSnapshotBlocks(SNAPSHOT);
    expect(sts.calls).toHaveLength(4);
  });
});

describe.each([
  ["an hour behind", 3_600_000],
  ["an hour ahead", -3_600_000],
])("a clock that is %s", (_name, clockMs) => {
  beforeEach(() => {
    sts.clockMs = clockMs;
    home.credentials(SOURCE);
  });

  test("is found out from STS, and the role is not assumed again and again", async () => {
    configure(`role_arn = ${ROLE}\nsource_profile = source`);
    const api = open();
    for (let i = 0; i < 20; i += 1) await api.listSnapshotBlocks(SNAPSHOT);
    // One with the wrong date, one with the right one; then the service is never asked with a wrong date.
    expect(sts.calls).toHaveLength(2);
    expect(sts.skewed).toBe(0);
  });

  test("stays corrected when credentials are renewed", async () => {
    configure(`role_arn = ${ROLE}\nsource_profile = source`);
    const api = open();
    await api.listSnapshotBlocks(SNAPSHOT);
    sts.expired = 1;
    await api.listSnapshotBlocks(SNAPSHOT);
    expect(sts.calls).toHaveLength(3);
    expect(sts.skewed).toBe(0);
  });

  test("is found out from the service where keys come without a date", async () => {
    const printed = { Version: 1, AccessKeyId: "ROLEKEY0", SecretAccessKey: "s" };
    const expiration = new Date(Date.now() + clockMs + 3_600_000).toISOString();
    const file = home.write("printed", JSON.stringify({ ...printed, Expiration: expiration }));
    configure(`credential_process = echo x >> $HOME/runs; cat ${file}`);
    const api = open();
    for (let i = 0; i < 20; i += 1) await api.listSnapshotBlocks(SNAPSHOT);
    expect(sts.skewed).toBe(1);
    expect(home.read("runs").split("x")).toHaveLength(3);
  });
});

test("credentials are fetched again before they end, once for many requests", async () => {
  home.credentials(SOURCE);
  configure(`role_arn = ${ROLE}\nsource_profile = source`);
  sts.lifeMs = 400_000;
  const api = open();
  await Promise.all(Array.from({ length: 30 }, () => api.listSnapshotBlocks(SNAPSHOT)));
  expect(sts.calls).toHaveLength(1);
});
