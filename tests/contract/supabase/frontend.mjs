// A frontend on the real `@supabase/supabase-js`: signs in and does as it is told. Run by test_frontends.py with
// {"url", "key", "email", "password", "steps": [{"rpc"|"select"|"insert"|"update"|"delete"|"upsert": …}]} as argument;
// prints one {"data", "error", "status", "count"} per step, after the session.
import { createClient } from '@supabase/supabase-js'

const { url, key, email, password, steps } = JSON.parse(process.argv[2])
const client = createClient(url, key, {
  auth: { persistSession: false, autoRefreshToken: false },
  realtime: { transport: class {} }, // browsers have a WebSocket, Node 20 has none, and nothing here subscribes
})

const does = {
  rpc: ({ name, args }) => client.rpc(name, args),
  select: ({ table }) => client.from(table).select('*'),
  insert: ({ table, row }) => client.from(table).insert(row),
  upsert: ({ table, row }) => client.from(table).upsert(row),
  update: ({ table, row, where }) => client.from(table).update(row).match(where),
  delete: ({ table, where }) => client.from(table).delete().match(where),
}

let session = null
if (email) {
  const signedIn = await client.auth.signInWithPassword({ email, password })
  if (signedIn.error) throw signedIn.error
  session = signedIn.data.session
}
const answers = []
for (const step of steps) {
  const [[verb, what]] = Object.entries(step)
  const { data, error, status } = await does[verb](what)
  answers.push({ data, error: error && { ...error, message: error.message }, status })
}
await client.auth.signOut({ scope: 'local' })
console.log(JSON.stringify({ session, answers }))
process.exit(0)
