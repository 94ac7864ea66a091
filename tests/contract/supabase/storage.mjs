// Supabase's Storage API on an in-memory PostgreSQL, bytes in memory too: `@supabase/lite` over PGlite, with one private
// bucket. Run by tests/contract/test_storage.py; the first line on stdout is {"port": …}. It ends with its stdin.
import { serve } from '@hono/node-server'
import { App } from '@supabase/lite'
import { createPgliteConnection } from '@supabase/lite/pglite'

const { jwtSecret, publishableKey, secretKey, url, port, bucket } = JSON.parse(process.argv[2])
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')
console.log = console.warn // stdout carries the port only

const files = new Map()
const metadata = ({ bytes, type, cache, at }) => ({
  cacheControl: cache, contentLength: bytes.length, size: bytes.length, mimetype: type, lastModified: at, eTag: `"${bytes.length}"`,
})
const known = (bucket, key) => {
  const file = files.get(`${bucket}/${key}`)
  if (!file) throw Object.assign(new Error('no such file'), { code: 'ENOENT' })
  return file
}

// lite's own adapter for folders is not exported (0.10.0): what it does, in memory.
const adapter = {
  driver: null,
  async getObject(bucket, key) {
    const file = known(bucket, key)
    return { httpStatusCode: 200, metadata: metadata(file), body: new Blob([file.bytes]).stream() }
  },
  async uploadObject(bucket, key, _version, body, type, cache) {
    const bytes = Buffer.from(body instanceof Uint8Array ? body : await new Response(body).arrayBuffer())
    const file = { bytes, type, cache, at: new Date() }
    files.set(`${bucket}/${key}`, file)
    return metadata(file)
  },
  async deleteObject(bucket, key) { files.delete(`${bucket}/${key}`) },
  async deleteObjects(bucket, keys) { for (const key of keys) files.delete(`${bucket}/${key}`) },
  async headObject(bucket, key) { return metadata(known(bucket, key)) },
}

const connection = await createPgliteConnection({})
const app = new App({
  connection,
  api: { external_url: url },
  auth: { enabled: true, jwt_secret: jwtSecret, publishable_key: publishableKey, secret_key: secretKey },
  storage: { enabled: true, file_size_limit: '200MiB' },
  options: { server: { admin: false, disableStudio: true } },
})
app._storageAdapter = adapter // as its documentation says; there is no other way yet
await app.ensureSystemSchema()
await app.init()
await connection.driver.exec(`insert into storage.buckets (id, name, public) values ('${bucket}', '${bucket}', false)`)

serve({ fetch: (request) => app.fetch(request, { peerAddress: '127.0.0.1' }), hostname: '127.0.0.1', port }, () => say({ port }))
process.stdin.on('end', () => process.exit(0)).resume() // whoever started us is gone
