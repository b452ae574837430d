/** Keys in the environment, by the names that the AWS CLI knows. Source: botocore, credentials.py EnvProvider. */
import { type Environment, variable } from "./config-files.js";
import { type AwsCredentials, CredentialsMistake, checkSecret } from "./credentials.js";

const ID = "AWS_ACCESS_KEY_ID";
const SECRET = "AWS_SECRET_ACCESS_KEY";
/** The older name comes first, as in botocore. */
const TOKENS = ["AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"];

export function hasEnvironmentKeys(env: Environment): boolean {
  return variable(env, ID) !== undefined;
}

/** @returns undefined where there are none. @throws CredentialsMistake that names the variable */
export function environmentKeys(env: Environment): AwsCredentials | undefined {
  const accessKeyId = variable(env, ID);
  const secretAccessKey = variable(env, SECRET);
  if (accessKeyId === undefined) return undefined;
  if (secretAccessKey === undefined) {
    throw new CredentialsMistake(`${ID} is set, but ${SECRET} is not; set both or neither.`);
  }
  const tokenName = TOKENS.find((name) => variable(env, name) !== undefined);
  const accountId = variable(env, "AWS_ACCOUNT_ID");
  return {
    accessKeyId: checkSecret(accessKeyId, ID),
    secretAccessKey: checkSecret(secretAccessKey, SECRET),
    ...(tokenName !== undefined && {
      sessionToken: checkSecret(variable(env, tokenName) as string, tokenName),
    }),
    ...(accountId !== undefined && { accountId }),
  };
}
