/** Mistakes on this machine end at once, without a request, in a sentence that names what is wrong. */
import { createHash } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { PlaceOptions } from "../../src/aws/settings.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { EbsError } from "../../src/ebs/errors.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";
import { json, type StubService, startStub } from "../ebs/stub-service.js";
import { AwsHome } from "../support/aws-home.js";

const SNAPSHOT = "snap-0123456789abcdef0" as SnapshotId;
/** Parts of keys and tokens; no sentence may hold it. */
const SECRET = "hush7Kq";
const KEYS = { AWS_ACCESS_KEY_ID: "AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY: "secret" };

let home: AwsHome;
let stub: StubService;

beforeEach(async () => {
  stub = await startStub(json({ Blocks: [], VolumeSize: 1, BlockSize: 524288 }));
  home = new AwsHome({ AWS_REGION: "eu-central-1", AWS_ENDPOINT_URL: stub.url });
});

afterEach(async () => {
  home.remove();
  await stub.close();
});

interface Mistake {
  readonly what: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly options?: PlaceOptions;
  readonly config?: string;
  readonly credentials?: string;
  readonly prepare?: () => void;
  readonly errno?: string;
  /** Everything that the sentence must say. HOME stands for the home folder. */
  readonly says: readonly string[];
}

const profile = (lines: string) => `[profile x]\n${lines}\n`;

const MISTAKES: readonly Mistake[] = [
  {
    what: "an endpoint without a scheme in a variable",
    env: { AWS_ENDPOINT_URL: "127.0.0.1:4566", ...KEYS },
    errno: "EINVAL",
    says: ["AWS_ENDPOINT_URL", '"127.0.0.1:4566"', "write http://127.0.0.1:4566"],
  },
  {
    what: "an endpoint that is only a name",
    env: { AWS_ENDPOINT_URL_EBS: "localhost:4566/x", ...KEYS },
    errno: "EINVAL",
    says: ["AWS_ENDPOINT_URL_EBS", "write http://localhost:4566/x"],
  },
  {
    what: "an endpoint of another protocol",
    env: { AWS_ENDPOINT_URL: "ftp://example.com", ...KEYS },
    errno: "EINVAL",
    says: ["AWS_ENDPOINT_URL", '"ftp://example.com" is not an http or https URL.'],
  },
  {
    what: "a password in an endpoint",
    env: { AWS_ENDPOINT_URL: `http://me:${SECRET}@example.com`, ...KEYS },
    errno: "EINVAL",
    says: ["AWS_ENDPOINT_URL", "leave them out"],
  },
  {
    what: "an endpoint without a scheme in a profile",
    env: { AWS_ENDPOINT_URL: "" },
    options: { profile: "x" },
    config: profile("endpoint_url = 127.0.0.1:4566"),
    errno: "EINVAL",
    says: ['endpoint_url of the AWS profile "x"', '"127.0.0.1:4566"'],
  },
  {
    what: "an endpoint without a scheme in a services section",
    env: { AWS_ENDPOINT_URL: "" },
    options: { profile: "x" },
    config: `${profile("services = s")}[services s]\nebs =\n  endpoint_url = example\n`,
    errno: "EINVAL",
    says: ["endpoint_url of ebs", 'services "s"', '"example"'],
  },
  {
    what: "a services section that is not there",
    env: { AWS_ENDPOINT_URL: "" },
    options: { profile: "x" },
    config: profile("services = gone"),
    errno: "EINVAL",
    says: ['the AWS profile "x"', "[services gone]", "HOME/.aws/config"],
  },
  {
    what: "an unknown --profile",
    options: { profile: "tpyo" },
    config: profile("region = eu-west-1"),
    errno: "EINVAL",
    says: ['"tpyo"', "--profile", "HOME/.aws/config", "HOME/.aws/credentials"],
  },
  {
    what: "an unknown AWS_PROFILE, also with keys in the environment",
    env: { AWS_PROFILE: "tpyo", ...KEYS },
    errno: "EINVAL",
    says: ['"tpyo"', "AWS_PROFILE"],
  },
  {
    what: "a region with a space",
    env: { AWS_REGION: "eu central 1", ...KEYS },
    errno: "EINVAL",
    says: ["AWS_REGION", '"eu central 1"'],
  },
  {
    what: "a region that ends in CR",
    env: { AWS_REGION: "", AWS_DEFAULT_REGION: "eu-west-1\r", ...KEYS },
    errno: "EINVAL",
    says: ["AWS_DEFAULT_REGION", '"eu-west-1\\r"'],
  },
  {
    what: "a region that is a host, in a profile",
    env: { AWS_REGION: "", AWS_PROFILE: "x" },
    config: profile("region = ebs.eu-west-1.amazonaws.com"),
    errno: "EINVAL",
    says: ['region of the AWS profile "x"'],
  },
  {
    what: "a --region that is none",
    options: { region: "-eu" },
    env: KEYS,
    errno: "EINVAL",
    says: ["--region", '"-eu"'],
  },
  {
    what: "no region",
    env: { AWS_REGION: "", AWS_ENDPOINT_URL: "", ...KEYS },
    errno: "EINVAL",
    says: ["No AWS region", "--region", "AWS_REGION"],
  },
  {
    what: "FIPS, and an endpoint that is not",
    env: { AWS_USE_FIPS_ENDPOINT: "true", ...KEYS },
    errno: "EINVAL",
    says: ["AWS_USE_FIPS_ENDPOINT", "127.0.0.1", "leave one of them out"],
  },
  {
    what: "an access key that ends in CR",
    env: { AWS_ACCESS_KEY_ID: `${SECRET}\r`, AWS_SECRET_ACCESS_KEY: "secret" },
    says: ["AWS_ACCESS_KEY_ID ends in a line break"],
  },
  {
    what: "a secret key that ends in LF",
    env: { AWS_ACCESS_KEY_ID: "AKID", AWS_SECRET_ACCESS_KEY: `${SECRET}\n` },
    says: ["AWS_SECRET_ACCESS_KEY ends in a line break"],
  },
  {
    what: "a token with a control character",
    env: { ...KEYS, AWS_SESSION_TOKEN: `${SECRET}\x1b[0m` },
    says: ["AWS_SESSION_TOKEN holds a control character"],
  },
  {
    what: "a token with a letter that no header takes",
    env: { ...KEYS, AWS_SESSION_TOKEN: `${SECRET}é` },
    says: ["AWS_SESSION_TOKEN holds a character that is not ASCII"],
  },
  {
    what: "a key in two lines of a file",
    options: { profile: "x" },
    credentials: `[x]\naws_access_key_id = AKID\naws_secret_access_key = ${SECRET}\n  ${SECRET}\n`,
    says: ['aws_secret_access_key of the AWS profile "x" holds a line break'],
  },
  {
    what: "half a pair of keys in the environment",
    env: { AWS_ACCESS_KEY_ID: SECRET },
    says: ["AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"],
  },
  {
    what: "half a pair of keys in a file",
    options: { profile: "x" },
    credentials: `[x]\naws_access_key_id = ${SECRET}\n`,
    says: ['The AWS profile "x"', "no aws_secret_access_key"],
  },
  {
    what: "no credentials at all",
    options: { profile: "x" },
    config: profile("region = eu-west-1"),
    says: ["No AWS credentials", 'the profile "x" has none', "AWS_EC2_METADATA_DISABLED"],
  },
  {
    what: "a web identity's token that is not there",
    options: { profile: "x" },
    config: profile("role_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /none/token"),
    says: ['web_identity_token_file of the AWS profile "x"', '"/none/token"', "does not exist"],
  },
  {
    what: "AWS_WEB_IDENTITY_TOKEN_FILE that is not there",
    env: { AWS_WEB_IDENTITY_TOKEN_FILE: "/none/token", AWS_ROLE_ARN: "arn:aws:iam::1:role/r" },
    says: ["AWS_WEB_IDENTITY_TOKEN_FILE", '"/none/token"', "does not exist"],
  },
  {
    what: "AWS_WEB_IDENTITY_TOKEN_FILE that is a folder",
    env: { AWS_WEB_IDENTITY_TOKEN_FILE: "/tmp", AWS_ROLE_ARN: "arn:aws:iam::1:role/r" },
    says: ["AWS_WEB_IDENTITY_TOKEN_FILE", '"/tmp"', "not a file"],
  },
  {
    what: "a web identity without a role",
    env: { AWS_WEB_IDENTITY_TOKEN_FILE: "/etc/hostname" },
    says: ["AWS_WEB_IDENTITY_TOKEN_FILE", "no role"],
  },
  {
    what: "a source_profile that is not there",
    options: { profile: "x" },
    config: profile("role_arn = arn:aws:iam::1:role/r\nsource_profile = gone"),
    says: ['The AWS profile "x"', 'source_profile "gone"', "HOME/.aws/credentials"],
  },
  {
    what: "a role without anything to assume it with",
    options: { profile: "x" },
    config: profile("role_arn = arn:aws:iam::1:role/r"),
    says: ['The AWS profile "x"', "source_profile", "credential_source"],
  },
  {
    what: "profiles that lead to each other",
    options: { profile: "x" },
    config: `${profile("role_arn = a\nsource_profile = y")}[profile y]\nrole_arn = b\nsource_profile = x\n`,
    says: ['"x", "y", "x"', "name each other"],
  },
  {
    what: "a source_profile without credentials",
    options: { profile: "x" },
    config: `${profile("role_arn = a\nsource_profile = y")}[profile y]\nregion = eu-west-1\n`,
    says: ['source_profile "y"', "no credentials"],
  },
  {
    what: "an unknown credential_source",
    options: { profile: "x" },
    config: profile("role_arn = a\ncredential_source = Magic"),
    says: ['"Magic"', "Environment, EcsContainer or Ec2InstanceMetadata"],
  },
  {
    what: "credential_source Environment without keys",
    options: { profile: "x" },
    config: profile("role_arn = a\ncredential_source = Environment"),
    says: ['The AWS profile "x"', "AWS_ACCESS_KEY_ID is not set"],
  },
  {
    what: "a role that needs a code",
    options: { profile: "x" },
    config: profile("role_arn = a\nsource_profile = x\nmfa_serial = arn:aws:iam::1:mfa/me"),
    says: ['The AWS profile "x"', "mfa_serial"],
  },
  {
    what: "credential_process that fails, with its own words",
    options: { profile: "x" },
    config: profile(`credential_process = echo ${SECRET}; echo "no ticket, run kinit" >&2; exit 3`),
    says: ['credential_process of the AWS profile "x"', "status 3", "no ticket, run kinit"],
  },
  {
    what: "credential_process that is not there",
    options: { profile: "x" },
    config: profile("credential_process = /none/program --now"),
    says: ['credential_process of the AWS profile "x"', "127", "/none/program"],
  },
  {
    what: "credential_process that prints rubbish",
    options: { profile: "x" },
    config: profile(`credential_process = echo ${SECRET}; echo "using cache" >&2`),
    says: ['credential_process of the AWS profile "x"', "no JSON", "using cache"],
  },
  {
    what: "credential_process that prints no key",
    options: { profile: "x" },
    config: profile(`credential_process = echo '{"Version":1,"SecretAccessKey":"${SECRET}"}'`),
    says: ['credential_process of the AWS profile "x"', "no AccessKeyId"],
  },
  {
    what: "credential_process that prints a key with a line break",
    options: { profile: "x" },
    config: profile("credential_process = cat $HOME/printed"),
    prepare: () => {
      const printed = { Version: 1, AccessKeyId: "A", SecretAccessKey: `${SECRET}\n` };
      home.write("printed", JSON.stringify(printed));
    },
    says: ["SecretAccessKey, printed by credential_process", "line break"],
  },
  {
    what: "credential_process of another version",
    options: { profile: "x" },
    config: profile(`credential_process = echo '{"Version":2}'`),
    says: ["credential_process", "version other than 1"],
  },
  {
    what: "credential_process that prints without end",
    options: { profile: "x" },
    config: profile("credential_process = exec yes"),
    says: ["credential_process", "more than 256 KiB"],
  },
  {
    what: "credential_process that says much, in colours and control characters",
    options: { profile: "x" },
    config: profile(
      `credential_process = (seq 1000; printf '\\033[31mlast\\033[0m\\a words\\n') >&2; exit 1`,
    ),
    says: ["999 1000 last words."],
  },
  {
    what: "a damaged configuration file",
    env: KEYS,
    config: `[default]\nregion = eu-west-1\n${SECRET}\n`,
    errno: "EINVAL",
    says: ["HOME/.aws/config", "line 3"],
  },
  {
    what: "a credentials file without a section",
    env: KEYS,
    credentials: `aws_access_key_id = ${SECRET}\n`,
    errno: "EINVAL",
    says: ["HOME/.aws/credentials", "line 1", "before the first [section]"],
  },
  {
    what: "a configuration file that is not text",
    env: KEYS,
    config: "[default]\nregion = \xff\xfe\n",
    errno: "EINVAL",
    says: ["HOME/.aws/config", "UTF-8"],
    prepare: () => home.write(".aws/config", Buffer.from([0x5b, 0xff, 0xfe, 0x5d])),
  },
  {
    // Not even root can read this one.
    what: "a configuration file that cannot be read",
    env: { ...KEYS, AWS_CONFIG_FILE: "/proc/self/mem" },
    errno: "EINVAL",
    says: ["/proc/self/mem cannot be read (EIO)", "AWS_CONFIG_FILE"],
  },
  {
    what: "an SSO session that is not there",
    options: { profile: "x" },
    config: profile(
      "sso_start_url = https://example.awsapps.com/start\nsso_region = eu-west-1\nsso_account_id = 123456789012\nsso_role_name = r",
    ),
    says: ['SSO session of the AWS profile "x" is not there', "aws sso login --profile x"],
  },
  {
    what: "an SSO session that has expired",
    options: { profile: "x" },
    config: `${profile("sso_session = mine\nsso_account_id = 123456789012\nsso_role_name = r")}[sso-session mine]\nsso_start_url = https://example.awsapps.com/start\nsso_region = eu-west-1\n`,
    prepare: () => {
      const token = { accessToken: SECRET, expiresAt: "2020-01-01T00:00:00Z" };
      const name = createHash("sha1").update("mine").digest("hex");
      home.write(`.aws/sso/cache/${name}.json`, JSON.stringify(token));
    },
    says: ['SSO session of the AWS profile "x" has expired', "aws sso login --profile x"],
  },
  {
    what: "an sso_session that is not there",
    options: { profile: "x" },
    config: profile("sso_session = gone\nsso_account_id = 123456789012\nsso_role_name = r"),
    says: ['The AWS profile "x"', 'sso_session "gone"'],
  },
  {
    what: "SSO without a role",
    options: { profile: "x" },
    config: profile(
      "sso_start_url = https://e.com/start\nsso_region = eu-west-1\nsso_account_id = 1",
    ),
    says: ['The AWS profile "x"', "sso_role_name", "aws configure sso"],
  },
  {
    what: "a login session that is not there",
    options: { profile: "x" },
    config: profile("login_session = arn:aws:iam::1:user/me"),
    says: ['login session of the AWS profile "x"', "aws login --profile x"],
  },
  {
    what: "a container's address that is no URL",
    env: { AWS_CONTAINER_CREDENTIALS_FULL_URI: "127.0.0.1/x" },
    says: ["AWS_CONTAINER_CREDENTIALS_FULL_URI", '"127.0.0.1/x"'],
  },
  {
    what: "a container's address that others could read",
    env: { AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://example.com/x" },
    says: ["AWS_CONTAINER_CREDENTIALS_FULL_URI", '"example.com"', "https"],
  },
  {
    what: "a container's token that ends in a line break",
    env: {
      AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://127.0.0.1/x",
      AWS_CONTAINER_AUTHORIZATION_TOKEN: `Bearer ${SECRET}\n`,
    },
    says: ["AWS_CONTAINER_AUTHORIZATION_TOKEN ends in a line break"],
  },
  {
    what: "a container's token file that is not there",
    env: {
      AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://127.0.0.1/x",
      AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: "/none/token",
    },
    says: ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", '"/none/token"', "does not exist"],
  },
];

async function failureOf(options: PlaceOptions): Promise<{ error: EbsError; ms: number }> {
  const api = createEbsApi({ ...options, threads: 0 });
  const begin = performance.now();
  try {
    const error = await api.listSnapshotBlocks(SNAPSHOT).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(EbsError);
    return { error: error as EbsError, ms: performance.now() - begin };
  } finally {
    await api.close();
  }
}

describe("a mistake ends at once:", () => {
  test.each(MISTAKES)("$what", async (mistake) => {
    const {
      env = {},
      options = {},
      config,
      credentials,
      prepare,
      errno = "EACCES",
      says,
    } = mistake;
    home.setEnvironment({ AWS_REGION: "eu-central-1", AWS_ENDPOINT_URL: stub.url, ...env });
    if (config !== undefined) home.config(config);
    if (credentials !== undefined) home.credentials(credentials);
    prepare?.();
    const { error, ms } = await failureOf(options);
    for (const words of says) {
      expect(error.message).toContain(words.replace("HOME", home.path));
    }
    expect(error.message).not.toContain(SECRET);
    expect(error.message.length).toBeLessThan(700);
    expect(error.message).toMatch(/^[\x20-\x7e…]*\.$/);
    expect(error.errno).toBe(errno);
    expect(error.attempts).toBe(1);
    expect(ms).toBeLessThan(5_000);
    expect(stub.requests).toEqual([]);
  });
});

test("what is no file holds nothing, as for the AWS CLI", async () => {
  mkdirSync(join(home.path, ".aws/config"), { recursive: true });
  process.env.AWS_SHARED_CREDENTIALS_FILE = "/dev/null";
  Object.assign(process.env, KEYS);
  const api = createEbsApi({ threads: 0 });
  try {
    await api.listSnapshotBlocks(SNAPSHOT);
  } finally {
    await api.close();
  }
  expect(stub.requests).toHaveLength(1);
});

test("where time is up, the sentence names whom it was waited for", async () => {
  const silent = await startStub(() => {});
  try {
    Object.assign(process.env, { ...KEYS, AWS_ENDPOINT_URL: silent.url });
    const api = createEbsApi({ threads: 0, ioTimeoutMs: 400 });
    const { host } = new URL(silent.url);
    await expect(api.listSnapshotBlocks(SNAPSHOT)).rejects.toThrow(host);
    await api.close();
    home.config("[profile x]\ncredential_process = exec sleep 2\n");
    const slow = createEbsApi({ profile: "x", threads: 0, ioTimeoutMs: 300 });
    const words =
      "no response from the source of the AWS credentials (profile x) within --io-timeout";
    await expect(slow.listSnapshotBlocks(SNAPSHOT)).rejects.toThrow(words);
    await slow.close();
  } finally {
    await silent.close();
  }
});

test("a mistake that is mended is noticed without a new start", async () => {
  home.credentials("[default]\naws_access_key_id = A\n");
  const api = createEbsApi({ threads: 0 });
  try {
    await expect(api.listSnapshotBlocks(SNAPSHOT)).rejects.toThrow(/no aws_secret_access_key/);
    home.credentials("[default]\naws_access_key_id = A\naws_secret_access_key = B\n");
    await api.listSnapshotBlocks(SNAPSHOT);
  } finally {
    await api.close();
  }
});
