// Supabase's REST and Auth APIs on an in-memory PostgreSQL: `@supabase/lite` over PGlite, with our migrations.
// Run by tests/contract/conftest.py. Takes {"sql": "…"} per line on stdin (as superuser, for arranging and asserting),
// answers {"rows": […]} or {"error": {…}} per line on stdout; the first line is {"port": …}.
import { serve } from '@hono/node-server'
import { App } from '@supabase/lite'
import { createPgliteConnection } from '@supabase/lite/pglite'
import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const { jwtSecret, publishableKey, secretKey, url, port, files } = JSON.parse(process.argv[2])
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')
console.log = console.warn // stdout carries answers only

const connection = await createPgliteConnection({})
const app = new App({
  connection,
  api: { external_url: url },
  auth: {
    enabled: true,
    jwt_secret: jwtSecret,
    publishable_key: publishableKey,
    secret_key: secretKey,
    enable_signup: true,
    email: { enable_confirmations: false },
  },
  options: { server: { admin: false, disableStudio: true } },
})
await app.ensureSystemSchema()
await app.init()

// At its first request that meets row level security, lite grants everything in those schemas to all three API roles,
// which hosted Supabase does not. Let it do so to an empty schema, and never again.
await connection.driver.exec('create schema scratch; create table scratch.t (); alter table scratch.t enable row level security')
await connection.withContext({ auth: { role: 'anon' } }, async () => {})
await connection.driver.exec('drop schema scratch cascade')

// What hosted projects have and lite lacks.
await connection.driver.exec(`
  grant usage on schema public, auth to anon, authenticated, service_role;
  alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
  alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
  alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
  create role authenticator nologin noinherit;
  grant anon, authenticated, service_role to authenticator;`)
for (const file of files) await connection.driver.exec(readFileSync(file, 'utf8'))
await connection.clearSchemaCache()

// lite runs begin, the call and commit as separate queries on PGlite's one connection, without a lock of its own: two
// requests at once would share a transaction, and with it a role. So one at a time, as PostgREST has a connection each.
let last = Promise.resolve()
const alone = (work) => (last = last.then(work, work))

// Hosted Auth names itself in its tokens and lite does not: the token as lite made it, with `iss` added.
const signed = (token) => {
  const [header, payload] = token.split('.')
  const claims = { ...JSON.parse(Buffer.from(payload, 'base64url')), iss: `${url}/auth/v1` }
  const unsigned = `${header}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`
  return `${unsigned}.${createHmac('sha256', jwtSecret).update(unsigned).digest('base64url')}`
}

const handle = (request) => alone(async () => {
  const answer = await app.fetch(request, { peerAddress: '127.0.0.1' })
  const body = answer.body && (await answer.text())
  if (answer.ok && /^\/auth\/v1\/(token|signup)$/.test(new URL(request.url).pathname)) {
    const session = JSON.parse(body)
    return Response.json({ ...session, access_token: signed(session.access_token) }, { headers: { 'access-control-allow-origin': '*' } })
  }
  return new Response(body, { status: answer.status, headers: answer.headers })
})
serve({ fetch: handle, hostname: '127.0.0.1', port }, () => say({ port }))

createInterface({ input: process.stdin })
  .on('line', (line) => alone(async () => {
    try {
      const { sql } = JSON.parse(line)
      const results = await connection.driver.exec(sql)
      if (/^\s*(create|drop)/.test(sql)) await connection.clearSchemaCache() // as `notify pgrst` does on a real one
      say({ rows: results.at(-1)?.rows ?? [] })
    } catch (error) {
      say({ error: { message: error.message, code: error.code } })
    }
  }))
  .on('close', () => process.exit(0)) // whoever started us is gone
