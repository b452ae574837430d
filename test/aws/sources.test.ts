/** Credentials from SSO, containers and instances: who is asked, where, and what is said when they fail. */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { PlaceOptions } from "../../src/aws/settings.js";
import { createEbsApi } from "../../src/ebs/create.js";
import type { EbsError } from "../../src/ebs/errors.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";
import { type Answer, json, type StubService, startStub } from "../ebs/stub-service.js";
import { AwsHome } from "../support/aws-home.js";

const SNAPSHOT = "snap-0123456789abcdef0" as SnapshotId;
const closers: (() => Promise<void>)[] = [];
let home: AwsHome;
/** The service, and the headers of its last request. */
let service: StubService;
let headers: IncomingMessage["headers"] = {};

beforeEach(async () => {
  service = await serve((request, response, body) => {
    headers = request.headers;
    json({ Blocks: [], VolumeSize: 1, BlockSize: 524288 })(request, response, body);
  });
  home = new AwsHome({ AWS_REGION: "eu-west-3", AWS_ENDPOINT_URL_EBS: service.url });
});

afterEach(async () => {
  home.remove();
  for (const close of closers.splice(0)) await close();
});

async function serve(...answers: Answer[]): Promise<StubService> {
  const stub = await startStub(...answers);
  closers.push(stub.close);
  return stub;
}

/** Lists once. @returns the access key that signed it. */
async function keyOf(options: PlaceOptions = {}): Promise<string | undefined> {
  const api = createEbsApi({ ...options, threads: 0, ioTimeoutMs: 6_000 });
  closers.push(() => api.close());
  await api.listSnapshotBlocks(SNAPSHOT);
  return /Credential=([^/]*)/.exec(headers.authorization ?? "")?.[1];
}

async function failureOf(options: PlaceOptions = {}): Promise<EbsError> {
  return await keyOf(options).then(
    () => expect.unreachable(),
    (error: unknown) => error as EbsError,
  );
}

const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString();

describe("SSO", () => {
  const login = (start: string, accessToken: string) => {
    const name = createHash("sha1").update(start).digest("hex");
    const token = { accessToken, expiresAt: inAnHour(), startUrl: start, region: "eu-north-1" };
    home.write(`.aws/sso/cache/${name}.json`, JSON.stringify(token));
  };
  const given = json({
    roleCredentials: {
      accessKeyId: "SSOKEY",
      secretAccessKey: "secret",
      sessionToken: "token",
      expiration: Date.now() + 3_600_000,
    },
  });
  const role = "sso_account_id = 123456789012\nsso_role_name = r\n";
  const session =
    "[sso-session mine]\nsso_start_url = https://e.awsapps.com/start#/\nsso_region = eu-north-1\n";

  beforeEach(() => {
    home.config(`[profile x]\nsso_session = mine\n${role}${session}`);
    login("mine", "sso-token");
  });

  test("a session's token buys a role's credentials", async () => {
    const portal = await serve(given);
    process.env.AWS_ENDPOINT_URL_SSO = portal.url;
    expect(await keyOf({ profile: "x" })).toBe("SSOKEY");
    expect(headers["x-amz-security-token"]).toBe("token");
    expect(portal.requests).toEqual([
      "GET /federation/credentials?account_id=123456789012&role_name=r",
    ]);
  });

  test("the old form, without a session, at the endpoint of the profile that was meant", async () => {
    const portal = await serve(given);
    const wrong = await serve(given);
    const start = "https://e.awsapps.com/start";
    login(start, "old");
    home.config(
      `[default]\nendpoint_url = ${wrong.url}\n[profile x]\nsso_start_url = ${start}\nsso_region = eu-north-1\n${role}services = s\n[services s]\nsso =\n  endpoint_url = ${portal.url}\n`,
    );
    expect(await keyOf({ profile: "x" })).toBe("SSOKEY");
    expect(portal.requests).toHaveLength(1);
    expect(wrong.requests).toHaveLength(0);
  });

  test("a token that SSO does not take: at once, with what to do", async () => {
    const portal = await serve((_request, response) => {
      response.writeHead(401, { "x-amzn-errortype": "UnauthorizedException" });
      response.end(JSON.stringify({ message: "Session token not found or invalid" }));
    });
    process.env.AWS_ENDPOINT_URL_SSO = portal.url;
    const error = await failureOf({ profile: "x" });
    expect(error.message).toContain("has expired; run aws sso login --profile x.");
    expect(error).toMatchObject({ attempts: 1, errno: "EACCES" });
  });

  test("a role that SSO does not give: at once, named", async () => {
    const portal = await serve((_request, response) => {
      response.writeHead(403, { "x-amzn-errortype": "ForbiddenException" });
      response.end(JSON.stringify({ message: "No access" }));
    });
    process.env.AWS_ENDPOINT_URL_SSO = portal.url;
    const error = await failureOf({ profile: "x" });
    expect(error.message).toContain('the role "r" in account "123456789012"');
    expect(error).toMatchObject({ attempts: 1, errno: "EACCES" });
  });

  test("a busy portal is waited for, one out of reach is named", async () => {
    const busy: Answer = (_request, response) => void response.writeHead(503).end("{}");
    const portal = await serve(busy, busy, given);
    process.env.AWS_ENDPOINT_URL_SSO = portal.url;
    expect(await keyOf({ profile: "x" })).toBe("SSOKEY");
    await portal.close();
    const error = await failureOf({ profile: "x" });
    expect(error.message).toContain(`cannot connect to ${new URL(portal.url).host}`);
    expect(error.message).toContain("from SSO");
  });
});

describe("a container", () => {
  const given = json({
    AccessKeyId: "CONTAINERKEY",
    SecretAccessKey: "secret",
    Token: "token",
    Expiration: inAnHour(),
  });

  test("its address and token are the environment's", async () => {
    let authorization: string | undefined;
    const agent = await serve((request, response, body) => {
      authorization = request.headers.authorization;
      given(request, response, body);
    });
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = `${agent.url}/v1/credentials?id=1`;
    process.env.AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE = home.write("token", "Bearer pod");
    // A proxy would ask its own machine.
    process.env.HTTP_PROXY = "http://127.0.0.1:1";
    process.env.NO_PROXY = new URL(service.url).host;
    expect(await keyOf()).toBe("CONTAINERKEY");
    expect(agent.requests).toEqual(["GET /v1/credentials?id=1"]);
    expect(authorization).toBe("Bearer pod");
  });

  test("keys in the environment and in the profile go before it", async () => {
    const agent = await serve(given);
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = agent.url;
    home.credentials("[default]\naws_access_key_id = FILEKEY\naws_secret_access_key = s\n");
    expect(await keyOf()).toBe("FILEKEY");
    expect(agent.requests).toEqual([]);
  });

  test("a profile may name it as its source", async () => {
    const agent = await serve(given);
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = agent.url;
    process.env.AWS_ENDPOINT_URL_STS = "http://127.0.0.1:1";
    home.config("[profile x]\nrole_arn = r\ncredential_source = EcsContainer\n");
    const error = await failureOf({ profile: "x" });
    expect(error.message).toContain("cannot connect to 127.0.0.1:1");
    expect(agent.requests.length).toBeGreaterThan(0);
  });

  test("one that does not respond is named, one that is busy waited for", async () => {
    const busy: Answer = (_request, response) => void response.writeHead(500).end();
    const agent = await serve(busy, given);
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = agent.url;
    expect(await keyOf()).toBe("CONTAINERKEY");
    await agent.close();
    const error = await failureOf();
    expect(error.message).toContain(`cannot connect to ${new URL(agent.url).host}`);
    expect(error.message).toContain("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  });

  test("one that refuses ends at once", async () => {
    const agent = await serve((_request, response) => void response.writeHead(403).end("{}"));
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = agent.url;
    const error = await failureOf();
    expect(error.message).toContain("status 403");
    expect(error).toMatchObject({ attempts: 1, errno: "EACCES" });
  });
});

describe("an instance", () => {
  const metadata = (path: (url: string) => string): Answer => {
    return (request, response) => {
      if (request.method === "PUT") response.end("metadata-token");
      else response.end(path(request.url ?? ""));
    };
  };
  const credentials = {
    Code: "Success",
    AccessKeyId: "INSTANCEKEY",
    SecretAccessKey: "secret",
    Token: "token",
    Expiration: inAnHour(),
  };

  beforeEach(() => {
    delete process.env.AWS_EC2_METADATA_DISABLED;
  });

  test("its role and region, where nothing else is configured", async () => {
    const instance = await serve(
      metadata((url) => {
        if (url.endsWith("/placement/region")) return "ap-east-1";
        return url.endsWith("/security-credentials/") ? "the-role" : JSON.stringify(credentials);
      }),
    );
    process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT = instance.url;
    expect(await keyOf()).toBe("INSTANCEKEY");
    // Not for AWS: the proxy refuses, and names where the request was to go.
    const proxy = await serve();
    delete process.env.AWS_REGION;
    delete process.env.AWS_ENDPOINT_URL_EBS;
    process.env.HTTPS_PROXY = proxy.url;
    const error = await failureOf();
    expect(error.message).toContain("ebs.ap-east-1.amazonaws.com:443");
  });

  test("a role with the instance's as its source, also in a container", async () => {
    const instance = await serve(
      metadata((url) =>
        url.endsWith("/security-credentials/") ? "the-role" : JSON.stringify(credentials),
      ),
    );
    process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT = instance.url;
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = "http://127.0.0.1:1/";
    process.env.AWS_ENDPOINT_URL_STS = "http://127.0.0.1:1";
    home.config("[profile x]\nrole_arn = r\ncredential_source = Ec2InstanceMetadata\n");
    const error = await failureOf({ profile: "x" });
    expect(error.message).toContain("cannot connect to 127.0.0.1:1");
    expect(instance.requests).toContain("GET /latest/meta-data/iam/security-credentials/the-role");
  });

  test("none: a sentence with everything that was looked at", async () => {
    const instance = await serve((_request, response) => void response.writeHead(404).end());
    process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT = instance.url;
    delete process.env.AWS_ENDPOINT_URL_EBS;
    const error = await failureOf();
    expect(error.message).toContain("No AWS credentials were found: AWS_ACCESS_KEY_ID is not set");
    expect(error.message).toContain("there is no instance role here");
    expect(error.errno).toBe("EACCES");
  });
});

test("an endpoint on loopback needs no credentials, but a mistake in them is heard of", async () => {
  delete process.env.AWS_ENDPOINT_URL_EBS;
  const place = { endpointUrl: service.url };
  expect(await keyOf(place)).toBe("local");
  home.config("[profile x]\nregion = eu-west-1\n");
  process.env.AWS_PROFILE = "x";
  expect(await keyOf(place)).toBe("local");
  expect((await failureOf({ ...place, profile: "x" })).message).toContain("No AWS credentials");
  home.config("[profile x]\ncredential_process = false\n");
  expect((await failureOf(place)).message).toContain("credential_process");
});
