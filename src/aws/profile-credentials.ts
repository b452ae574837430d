/**
 * The credentials of a profile, by the kinds that the AWS CLI knows and in its order: a role, assumed with the
 * credentials of another profile or of this machine; a role for a web identity; SSO; keys; `aws login`; a
 * program. Every mistake in a profile ends here with a sentence that names it. Source: botocore,
 * credentials.py AssumeRoleProvider and ProfileProviderBuilder.
 */
import type { HttpTransport } from "../http/transport.js";
import {
  type ConfigFiles,
  type Environment,
  type Profile,
  quoted,
  variable,
} from "./config-files.js";
import { containerCredentials, hasContainer } from "./container-credentials.js";
import { processCredentials } from "./credential-process.js";
import { type AwsCredentials, CredentialsMistake, checkSecret } from "./credentials.js";
import { environmentKeys } from "./environment-keys.js";
import type { Values } from "./ini.js";
import {
  checkSectionName,
  PROFILE,
  type SdkContext,
  throughSdk,
  withTokenFile,
} from "./sdk-credentials.js";
import type { ServiceName } from "./settings.js";
import { readTokenFile } from "./token-file.js";

export interface ProfileContext {
  readonly env: Environment;
  readonly files: ConfigFiles;
  readonly sdk: SdkContext;
  readonly transport: HttpTransport;
  readonly stallMs: number;
  /** @throws Failure EINVAL */
  endpoint(service: ServiceName): string | undefined;
}

/** Profiles that lead to each other deeper than this are a mistake. */
const MAX_DEPTH = 16;

/**
 * @param visited profiles that led here, by source_profile.
 * @returns undefined where the profile says nothing about credentials.
 * @throws CredentialsMistake, CredentialsError, Failure
 */
export async function profileCredentials(
  context: ProfileContext,
  profile: Profile,
  visited: readonly string[] = [],
): Promise<AwsCredentials | undefined> {
  const { values, credentials } = profile;
  const owner = ownerOf(profile);
  const isSource = visited.length > 0;
  const hasRole = values.has("role_arn") && !values.has("web_identity_token_file");
  if (hasRole && !(isSource && hasKeys(values)))
    return await assumedRole(context, profile, visited);
  const tokenFile = values.get("web_identity_token_file");
  if (tokenFile) {
    return await webIdentityCredentials(context, {
      token: readTokenFile(tokenFile, `web_identity_token_file of ${owner}`),
      roleArn: values.get("role_arn"),
      sessionName: values.get("role_session_name"),
      owner,
    });
  }
  if (values.has("sso_account_id") || values.has("sso_role_name")) {
    return await ssoCredentials(context, profile);
  }
  if (credentials.has("aws_access_key_id")) return keys(credentials, owner);
  if (values.has("login_session")) return await loginCredentials(context, profile);
  const command = values.get("credential_process");
  if (command) {
    const found = await processCredentials(command, owner, context.env as NodeJS.ProcessEnv);
    const accountId = found.accountId ?? values.get("aws_account_id");
    return { ...found, ...(accountId && { accountId }) };
  }
  return hasKeys(values) ? keys(values, owner) : undefined;
}

export interface WebIdentity {
  readonly token: string;
  readonly roleArn: string | undefined;
  readonly sessionName: string | undefined;
  /** Whose it is: `the AWS profile "x"`, or the variable. */
  readonly owner: string;
}

/** @throws CredentialsMistake, CredentialsError */
export async function webIdentityCredentials(
  { sdk, endpoint }: Pick<ProfileContext, "sdk" | "endpoint">,
  { token, roleArn, sessionName, owner }: WebIdentity,
): Promise<AwsCredentials> {
  if (!roleArn)
    throw new CredentialsMistake(`${capital(owner)} names a web identity's token but no role.`);
  return await withTokenFile(token.trim(), (path) =>
    throughSdk(sdk, {
      what: `the role ${quoted(roleArn)} of ${owner} could not be assumed`,
      init: {
        webIdentityTokenFile: path,
        roleArn,
        roleSessionName: sessionName || newSessionName(),
      },
      clientConfig: { region: sdk.region },
      endpoint: endpoint("sts"),
    }),
  );
}

async function assumedRole(
  context: ProfileContext,
  profile: Profile,
  visited: readonly string[],
): Promise<AwsCredentials> {
  const { values } = profile;
  const owner = ownerOf(profile);
  const roleArn = values.get("role_arn") as string;
  if (values.has("mfa_serial")) {
    const sentence = `${capital(owner)} needs a code of a multi-factor device (mfa_serial), which cannot be asked for here; export keys with \`aws configure export-credentials --profile ${profile.name}\`.`;
    throw new CredentialsMistake(sentence);
  }
  const byInstance = values.get("credential_source") === "Ec2InstanceMetadata";
  const isInstance = byInstance && !values.get("source_profile");
  if (isInstance) requireMetadata(context.env);
  const source = isInstance
    ? undefined
    : await sourceCredentials(context, profile, [...visited, profile.name]);
  const seconds = values.get("duration_seconds");
  return await throughSdk(context.sdk, {
    what: `the role ${quoted(roleArn)} of ${owner} could not be assumed`,
    sections: {
      [`profile ${PROFILE}`]: {
        role_arn: roleArn,
        ...(isInstance
          ? { credential_source: "Ec2InstanceMetadata" }
          : { source_profile: "source" }),
        external_id: values.get("external_id"),
        role_session_name: values.get("role_session_name") || newSessionName(),
        duration_seconds: /^\d{1,6}$/.test(seconds ?? "") ? seconds : undefined,
      },
      "profile source": {
        aws_access_key_id: source?.accessKeyId,
        aws_secret_access_key: source?.secretAccessKey,
        aws_session_token: source?.sessionToken,
      },
    },
    clientConfig: { region: context.sdk.region },
    endpoint: context.endpoint("sts"),
  });
}

/** What a role is assumed with. */
async function sourceCredentials(
  context: ProfileContext,
  profile: Profile,
  visited: readonly string[],
): Promise<AwsCredentials> {
  const { values } = profile;
  const owner = capital(ownerOf(profile));
  const name = values.get("source_profile");
  const place = values.get("credential_source");
  if (name && place) {
    const sentence = `${owner} has both a source_profile and a credential_source; leave one out.`;
    throw new CredentialsMistake(sentence);
  }
  if (place) return await placeCredentials(context, place, owner);
  if (!name) {
    const sentence = `${owner} names a role, but neither a source_profile nor a credential_source to assume it with.`;
    throw new CredentialsMistake(sentence);
  }
  const source = context.files.profiles.get(name);
  if (source === undefined) {
    const { configPath, credentialsPath } = context.files;
    const sentence = `${owner} names the source_profile ${quoted(name)}, which is neither in ${configPath} nor in ${credentialsPath}; check its spelling.`;
    throw new CredentialsMistake(sentence);
  }
  const isOwn = name === profile.name && hasKeys(source.values);
  if ((visited.includes(name) && !isOwn) || visited.length > MAX_DEPTH) {
    const chain = [...visited, name].slice(0, MAX_DEPTH).map(quoted).join(", ");
    throw new CredentialsMistake(`The AWS profiles ${chain} name each other as source_profile.`);
  }
  const found = await profileCredentials(context, source, visited);
  if (found !== undefined) return found;
  const sentence = `${owner} names the source_profile ${quoted(name)}, which has no credentials.`;
  throw new CredentialsMistake(sentence);
}

/** Of `credential_source`. */
async function placeCredentials(
  context: ProfileContext,
  place: string,
  owner: string,
): Promise<AwsCredentials> {
  const { env, transport, stallMs } = context;
  const named = `${owner} has the credential_source ${quoted(place)}`;
  switch (place) {
    case "Environment": {
      const found = environmentKeys(env);
      if (found !== undefined) return found;
      throw new CredentialsMistake(`${named}, but AWS_ACCESS_KEY_ID is not set.`);
    }
    case "EcsContainer":
      if (hasContainer(env)) return await containerCredentials(env, transport, stallMs);
      throw new CredentialsMistake(`${named}, but this is not a container with credentials.`);
    default:
      throw new CredentialsMistake(
        `${named}; it must be Environment, EcsContainer or Ec2InstanceMetadata.`,
      );
  }
}

/** Of the role of an EC2 instance. @throws CredentialsMistake, CredentialsError */
export async function instanceCredentials(
  sdk: SdkContext,
  env: Environment,
): Promise<AwsCredentials> {
  requireMetadata(env);
  return await throughSdk(sdk, { what: "the credentials of this instance's role" });
}

/** @throws CredentialsMistake where the user does not want an instance's metadata to be asked. */
function requireMetadata(env: Environment): void {
  const name = "AWS_EC2_METADATA_DISABLED";
  if (variable(env, name)?.toLowerCase() !== "true") return;
  throw new CredentialsMistake(
    `The instance's metadata is not asked for a role, because ${name} is true.`,
  );
}

async function ssoCredentials(
  { sdk, files, endpoint }: ProfileContext,
  profile: Profile,
): Promise<AwsCredentials> {
  const owner = capital(ownerOf(profile));
  const sessionName = profile.values.get("sso_session");
  const session = sessionName ? files.ssoSessions.get(sessionName) : undefined;
  if (sessionName && session === undefined) {
    const sentence = `${owner} names the sso_session ${quoted(sessionName)}, which ${files.configPath} does not have; check its spelling.`;
    throw new CredentialsMistake(sentence);
  }
  const setting = (name: string): string => {
    const value = session?.get(name) ?? profile.values.get(name);
    if (value) return value;
    throw new CredentialsMistake(`${owner} uses SSO, but has no ${name}; run aws configure sso.`);
  };
  const [accountId, roleName] = [setting("sso_account_id"), setting("sso_role_name")];
  const [startUrl, region] = [setting("sso_start_url"), setting("sso_region")];
  const logIn = `run aws sso login --profile ${profile.name}`;
  return await throughSdk(sdk, {
    what: `the AWS credentials of ${ownerOf(profile)} from SSO`,
    sections: sessionName
      ? {
          [`profile ${PROFILE}`]: { sso_session: checkSectionName(sessionName, "sso_session") },
          [`sso-session ${sessionName}`]: { sso_start_url: startUrl, sso_region: region },
        }
      : {},
    init: {
      ssoAccountId: accountId,
      ssoRoleName: roleName,
      ssoStartUrl: startUrl,
      ssoRegion: region,
      ...(sessionName && { ssoSession: sessionName }),
    },
    endpoint: endpoint("sso"),
    mistake: (words) => {
      if (/UnauthorizedException|sso login/i.test(words)) {
        const what = /expired|cannot refresh|UnauthorizedException/i.test(words)
          ? "has expired"
          : "is not there";
        return `The SSO session of ${ownerOf(profile)} ${what}; ${logIn}.`;
      }
      if (/ForbiddenException/i.test(words)) {
        return `SSO gives no credentials for the role ${quoted(roleName)} in account ${quoted(accountId)} of ${ownerOf(profile)} (${words}).`;
      }
      return undefined;
    },
  });
}

async function loginCredentials(
  { sdk, endpoint }: ProfileContext,
  profile: Profile,
): Promise<AwsCredentials> {
  const { values, name } = profile;
  return await throughSdk(sdk, {
    what: `the AWS credentials of ${ownerOf(profile)} from aws login`,
    sections: {
      [`profile ${PROFILE}`]: {
        login_session: values.get("login_session"),
        region: values.get("region") ?? sdk.region,
      },
    },
    endpoint: endpoint("signin"),
    mistake: (words) =>
      /login|token|session/i.test(words)
        ? `The login session of ${ownerOf(profile)} cannot be used (${words}); run aws login --profile ${name}.`
        : undefined,
  });
}

function hasKeys(values: Values): boolean {
  return values.has("aws_access_key_id") || values.has("aws_secret_access_key");
}

/** @throws CredentialsMistake */
function keys(values: Values, owner: string): AwsCredentials {
  const key = (name: string): string => {
    const value = values.get(name);
    if (value) return checkSecret(value, `${name} of ${owner}`);
    throw new CredentialsMistake(`${capital(owner)} has half a pair of keys: no ${name}.`);
  };
  const tokenName = ["aws_security_token", "aws_session_token"].find((name) => values.get(name));
  const accountId = values.get("aws_account_id");
  return {
    accessKeyId: key("aws_access_key_id"),
    secretAccessKey: key("aws_secret_access_key"),
    ...(tokenName !== undefined && { sessionToken: key(tokenName) }),
    ...(accountId && { accountId }),
  };
}

function newSessionName(): string {
  return `ebsmount-${Date.now()}`;
}

function ownerOf({ name }: Profile): string {
  return `the AWS profile ${quoted(name)}`;
}

function capital(text: string): string {
  return text[0]?.toUpperCase() + text.slice(1);
}
