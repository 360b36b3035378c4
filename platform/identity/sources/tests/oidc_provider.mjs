// A real OpenID provider for the tests: oidc-provider with its development pages, over HTTPS.
// Settings come as JSON on the first line of standard input.
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { createPrivateKey } from 'node:crypto';

const line = await new Promise((resolve) => createInterface({ input: process.stdin }).once('line', resolve));
const settings = JSON.parse(line);
const { default: Provider } = await import(settings.entry);

const jwks = {
  keys: settings.keys.map(({ pem, kid, alg }) => ({
    ...createPrivateKey(pem).export({ format: 'jwk' }), kid, alg, use: 'sig',
  })),
};
const people = {
  alice: { name: 'Alice Example', email: 'alice@example.org', email_verified: true, groups: ['devs', 'ops'] },
  mallory: { name: 'Mallory', email: 'admin@example.org', email_verified: false, groups: 'one' },
};
const provider = new Provider(settings.issuer, {
  jwks,
  clients: settings.clients,
  cookies: { keys: ['a test signs its cookies with this'] },
  pkce: { required: () => true },
  conformIdTokenClaims: !settings.claimsInIdToken,
  claims: {
    openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'],
    groups: ['groups', 'realm'],
  },
  scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
  ttl: { IdToken: settings.idTokenSeconds, AccessToken: 300, Session: 600, Grant: 600, Interaction: 600, DeviceCode: 300 },
  async findAccount(ctx, id) {
    const claims = { sub: id, preferred_username: id, realm: { roles: ['r1'] }, ...people[id] };
    return people[id] && { accountId: id, claims: async () => claims };
  },
});
createServer({ key: readFileSync(settings.tlsKey), cert: readFileSync(settings.tlsCertificate) }, provider.callback())
  .listen(settings.port, '127.0.0.1');
