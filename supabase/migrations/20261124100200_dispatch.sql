-- The dispatcher's side of the outbox: claim, record what came of it, tend what nobody holds.
-- Locks: message_states, messages, outbox, the rest, each in key order; claims pass over what others hold.
set lock_timeout = '5s';

create index outbox_lease on app.outbox (lease_until) where lease_token is not null;

-- Numbers with messages that may go now, with what the dispatcher needs to pace and to speak for them.
-- Returns [{workspace_id, channel_id, phone_number_id, waba_id, tier_mps, token_sealed, key_id, due (counted to 1,000), oldest_ms}].
create function public.sending_channels()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  with recursive numbers as ( -- one step of the index a number, however much each has waiting
    (
      select o.workspace_id, o.channel_id
      from app.outbox o
      where o.kind = 'message' and o.state = 'due' and o.lease_token is null
      order by o.workspace_id, o.channel_id
      limit 1
    )
    union all
    select n.workspace_id, n.channel_id
    from numbers c
    cross join lateral (
      select o.workspace_id, o.channel_id
      from app.outbox o
      where o.kind = 'message' and o.state = 'due' and o.lease_token is null
        and (o.workspace_id, o.channel_id) > (c.workspace_id, c.channel_id)
      order by o.workspace_id, o.channel_id
      limit 1
    ) n
  )
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'workspace_id', h.workspace_id, 'channel_id', h.id, 'phone_number_id', h.phone_number_id, 'waba_id', h.waba_id,
    'tier_mps', h.tier_mps, 'token_sealed', t.token_sealed, 'key_id', t.key_id, 'due', w.due,
    'oldest_ms', pg_catalog.round(extract(epoch from now() - w.oldest_at) * 1000)::bigint)), '[]')
  from numbers n
  join public.whatsapp_channels h on h.workspace_id = n.workspace_id and h.id = n.channel_id
  join app.channel_tokens t on t.workspace_id = h.workspace_id and t.channel_id = h.id
  cross join lateral (
    select count(*) as due, min(x.next_attempt_at) as oldest_at
    from (
      select o.next_attempt_at
      from app.outbox o
      where o.workspace_id = n.workspace_id and o.channel_id = n.channel_id
        and o.kind = 'message' and o.state = 'due' and o.lease_token is null
      order by o.priority, o.place
      limit 1000
    ) x
  ) w
  where h.state = 'connected'
    and (h.hold_reason is null or coalesce(h.hold_until, 'infinity') <= now());
$$;
revoke execute on function public.sending_channels from public, anon, authenticated;
grant execute on function public.sending_channels to service_role;

-- Whether a pair may have another message. Meta lends a burst and then wants all of it waited off, 6 s a message
-- (M:throughput, read 2026-11-22); so within a burst up to 10, and after it none until it is repaid.
create function app.pair_allows(p_free_at timestamptz, p_burst_from timestamptz, p_burst smallint, p_now timestamptz)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select p_now >= p_free_at or (p_now < p_burst_from + interval '5 seconds' and p_burst < 10);
$$;
revoke execute on function app.pair_allows from public;
grant execute on function app.pair_allows to service_role;

create type app.picked_message as (
  workspace_id uuid,
  id uuid,
  channel_id uuid,
  message_id uuid,
  lane uuid,
  priority smallint,
  place bigint,
  attempt smallint, -- the one to come
  media_ids jsonb,
  is_marketing boolean,
  most integer,
  verdict text -- go, later (as it is), why it waits, or why it is stopped
);

-- Claim messages, each with an attempt, committed before anybody calls Meta.
-- p_wants: [{workspace_id, channel_id, most}], a number once. Priority, then age; of one conversation one at a time.
-- What must not go any more (blocked, deleted, opted out of meanwhile) is stopped; the next tending tells, see tell_stopped.
-- Returns {messages: [{workspace_id, outbox_id, message_id, channel_id, attempt, wa_id, user_id, group_id, payload, reply_to,
--   files {our media id: Meta's}, put_off, throttled (how often before), queued_ms, priority, is_marketing}],
--   next_ms: until the first waiting row, null: none}.
create function public.claim_messages(p_wants jsonb, p_lease_token uuid, p_lease_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
set enable_seqscan = off
set random_page_cost = 1.1
set plan_cache_mode = force_custom_plan
set jit = off
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_picked app.picked_message[];
  v_lanes uuid[];
  v_free uuid[]; -- lanes whose pair we hold
  v_result jsonb;
begin
  -- 1. Candidates, twice as many as wanted: some will have to wait. Whatever another dispatcher is at is passed over.
  select pg_catalog.array_agg(row(
    o.workspace_id, o.id, o.channel_id, o.message_id, o.lane, o.priority, o.place, o.attempts + 1, o.payload -> 'media_ids',
    o.is_marketing, w.most, null)::app.picked_message)
  into v_picked
  from pg_catalog.jsonb_to_recordset(p_wants) as w(workspace_id uuid, channel_id uuid, most integer)
  cross join lateral (
    select *
    from app.outbox x
    where x.workspace_id = w.workspace_id
      and x.channel_id = w.channel_id
      and x.kind = 'message'
      and x.state = 'due'
      and x.lease_token is null
      and x.expires_at > v_now
    order by x.priority, x.place
    limit w.most * 2
    for no key update skip locked
  ) o;

  if v_picked is not null then
    v_lanes := array(select distinct p.lane from pg_catalog.unnest(v_picked) p order by 1);
    v_free := array(
      select s.lane
      from (select distinct p.workspace_id, p.lane from pg_catalog.unnest(v_picked) p order by 1, 2) l
      cross join lateral (
        select x.lane
        from app.send_pairs x
        where x.workspace_id = l.workspace_id
          and x.lane = l.lane
        for no key update skip locked
      ) s);

    -- 2. Which go, and what the others wait for.
    select pg_catalog.array_agg(row(
      j.workspace_id, j.id, j.channel_id, j.message_id, j.lane, j.priority, j.place, j.attempt, j.media_ids, j.is_marketing, j.most,
      case when j.verdict = 'go' and j.nth > j.most then 'later' else j.verdict end)::app.picked_message)
    into v_picked
    from (
      select d.*, pg_catalog.row_number() over (partition by d.channel_id, d.verdict order by d.priority, d.place) as nth
      from (
        select p.workspace_id, p.id, p.channel_id, p.message_id, p.lane, p.priority, p.place, p.attempt, p.media_ids, p.is_marketing, p.most,
          case
            when v.status = 'blocked' then 'contact_blocked'
            when v.status = 'deleted' then 'conversation_deleted'
            when p.is_marketing and k.opted_out_at is not null then 'opted_out'
            when p.is_marketing and h.marketing_paused_at is not null then 'marketing_paused'
            when pg_catalog.row_number() over (partition by p.workspace_id, p.lane order by p.priority, p.place) > 1 then 'behind'
            when exists (
              select from app.outbox e
              where e.workspace_id = p.workspace_id and e.lane = p.lane and e.priority = p.priority and e.place < p.place
                and e.kind = 'message' and e.state in ('due', 'waiting', 'in_doubt')
                and (e.state <> 'waiting' or e.wait_reason <> 'scheduled')
                -- Meta puts marketing off for a day; what a customer is answered does not wait for that.
                and (e.state <> 'waiting' or e.wait_reason <> 'backoff' or not e.is_marketing)
                -- In doubt it holds up the next for 30 s, no longer.
                and (e.doubt_since is null or e.state <> 'in_doubt' or e.doubt_since > v_now - interval '30 seconds'))
            then 'behind'
            when not p.lane = any (v_free) then 'later'
            when not app.pair_allows(s.free_at, s.burst_from, s.burst, v_now) then 'pair'
            when p.media_ids is not null and exists (
              select from pg_catalog.jsonb_array_elements_text(p.media_ids) f(id)
              where not exists (
                select from app.media_uploads u
                where u.workspace_id = p.workspace_id and u.media_id = f.id::uuid and u.channel_id = p.channel_id and u.expires_at > v_now))
            then 'media'
            else 'go'
          end as verdict
        from pg_catalog.unnest(v_picked) p
        -- Each by its key (offset 0), whatever the planner thinks of a young table: joined freely, claiming took ten times as
        -- long until the first analysis.
        cross join lateral (
          select x.free_at, x.burst_from, x.burst
          from app.send_pairs x where x.workspace_id = p.workspace_id and x.lane = p.lane offset 0
        ) s
        cross join lateral (
          select x.marketing_paused_at
          from public.whatsapp_channels x where x.workspace_id = p.workspace_id and x.id = p.channel_id offset 0
        ) h
        cross join lateral (
          select x.conversation_id, x.contact_id
          from public.whatsapp_messages x where x.workspace_id = p.workspace_id and x.id = p.message_id offset 0
        ) m
        cross join lateral (
          select x.status
          from public.whatsapp_conversations x where x.workspace_id = p.workspace_id and x.id = m.conversation_id offset 0
        ) v
        left join lateral (
          select x.opted_out_at
          from public.contacts x where x.workspace_id = p.workspace_id and x.id = m.contact_id offset 0
        ) k on true
      ) d
    ) j;

    update app.outbox o
    set lease_token = case when p.verdict = 'go' then p_lease_token end,
        lease_until = case when p.verdict = 'go' then v_now + pg_catalog.make_interval(secs => p_lease_ms / 1000.0) end,
        attempts = case when p.verdict = 'go' then p.attempt else o.attempts end,
        state = case when p.verdict = 'go' then 'due' when p.verdict in ('behind', 'pair', 'media') then 'waiting' else 'held' end,
        wait_reason = case when p.verdict in ('behind', 'pair', 'media') then p.verdict end,
        -- Who goes first lets the next one go; 2 s are for the one that was missed between two transactions, and more for
        -- those further back: coming to nothing every 2 s, they would keep other conversations from being looked at.
        next_attempt_at = case p.verdict
          when 'go' then o.next_attempt_at
          when 'behind' then v_now + interval '2 seconds' * (
            select greatest(1, least(30, count(*)))
            from app.outbox e
            where e.workspace_id = p.workspace_id and e.lane = p.lane and e.priority = p.priority and e.place < p.place
              and e.kind = 'message' and e.state in ('due', 'waiting', 'in_doubt')
              and (e.state <> 'waiting' or e.wait_reason <> 'scheduled'))
          when 'pair' then (select s.free_at from app.send_pairs s where s.workspace_id = p.workspace_id and s.lane = p.lane)
          when 'media' then v_now + interval '10 seconds' -- likewise
          else '-infinity' end,
        error = case p.verdict
          when 'contact_blocked' then app.send_error(p.verdict, 'Contact blocked', 'The contact was blocked before it was sent.')
          when 'conversation_deleted' then app.send_error(p.verdict, 'Conversation deleted', 'The conversation was deleted before it was sent.')
          when 'opted_out' then app.send_error(p.verdict, 'Opted out', 'The customer wants no marketing messages from you.')
          when 'marketing_paused' then app.send_error(p.verdict, 'Marketing is paused', 'It waits: marketing through this number is paused.')
          else o.error end
    from pg_catalog.unnest(v_picked) p
    where o.workspace_id = p.workspace_id
      and o.id = p.id
      and p.verdict <> 'later';

    perform app.queue_uploads(p.workspace_id, p.channel_id, array(select f::uuid from pg_catalog.jsonb_array_elements_text(p.media_ids) f))
    from pg_catalog.unnest(v_picked) p
    where p.verdict = 'media';

    insert into app.send_attempts (workspace_id, message_id, attempt, outbox_id, started_at)
    select p.workspace_id, p.message_id, p.attempt, p.id, v_now
    from pg_catalog.unnest(v_picked) p
    where p.verdict = 'go';

    -- A second more than Meta's six: its clock starts when the message arrives there, ours now.
    update app.send_pairs s
    set free_at = case when v_now >= s.free_at then v_now + interval '7 seconds' else s.free_at + interval '6 seconds' end,
        burst_from = case when v_now >= s.free_at then v_now else s.burst_from end,
        burst = case when v_now >= s.free_at then 1 else s.burst + 1 end
    from pg_catalog.unnest(v_picked) p
    where p.verdict = 'go'
      and s.workspace_id = p.workspace_id
      and s.lane = p.lane;
  end if;

  select pg_catalog.jsonb_build_object(
    'messages', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'workspace_id', m.workspace_id, 'outbox_id', p.id, 'message_id', m.id, 'channel_id', m.channel_id, 'attempt', p.attempt,
        'wa_id', m.sender_wa_id, 'user_id', m.sender_user_id, 'group_id', v.group_id, 'payload', m.payload,
        'reply_to', case when m.message_type <> 'reaction' then m.reply_to_wamid end,
        'files', coalesce((
          select pg_catalog.jsonb_object_agg(u.media_id, u.meta_id)
          from app.media_uploads u
          where u.workspace_id = m.workspace_id and u.channel_id = m.channel_id
            and u.media_id in (select f::uuid from pg_catalog.jsonb_array_elements_text(p.media_ids) f)), '{}'),
        'put_off', b.put_off, 'throttled', b.throttled,
        'queued_ms', pg_catalog.round(extract(epoch from v_now - greatest(m.created_at, m.send_at)) * 1000)::bigint,
        'priority', p.priority, 'is_marketing', p.is_marketing) order by p.priority, p.place)
      from pg_catalog.unnest(v_picked) p
      cross join lateral (
        select * from public.whatsapp_messages x where x.workspace_id = p.workspace_id and x.id = p.message_id offset 0
      ) m
      cross join lateral (
        select x.group_id
        from public.whatsapp_conversations x where x.workspace_id = m.workspace_id and x.id = m.conversation_id offset 0
      ) v
      cross join lateral (
        select count(*) filter (where a.outcome = 'put_off') as put_off, count(*) filter (where a.outcome = 'throttled') as throttled
        from app.send_attempts a
        where p.attempt > 1
          and a.workspace_id = p.workspace_id
          and a.message_id = p.message_id
      ) b
      where p.verdict = 'go'
    ), '[]'),
    'next_ms', (
      select greatest(0, pg_catalog.round(extract(epoch from o.next_attempt_at - v_now) * 1000))::bigint
      from app.outbox o
      where o.state = 'waiting'
      order by o.next_attempt_at
      limit 1))
  into v_result;
  return v_result;
end;
$$;
revoke execute on function public.claim_messages from public, anon, authenticated;
grant execute on function public.claim_messages to service_role;

-- Lengthen the leases a dispatcher holds. Returns how many rows those are.
create function public.renew_outbox(p_lease_tokens jsonb, p_lease_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_count integer;
begin
  with held as (
    select o.workspace_id, o.id
    from app.outbox o
    where o.lease_token in (select t::uuid from pg_catalog.jsonb_array_elements_text(p_lease_tokens) t)
      and o.lease_until > now() -- a dead one stays dead: somebody may be about to take it
    order by o.workspace_id, o.id
    for no key update skip locked
  )
  update app.outbox o
  set lease_until = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => p_lease_ms / 1000.0)
  from held h
  where o.workspace_id = h.workspace_id
    and o.id = h.id;
  get diagnostics v_count = row_count;
  return pg_catalog.to_jsonb(v_count);
end;
$$;
revoke execute on function public.renew_outbox from public, anon, authenticated;
grant execute on function public.renew_outbox to service_role;

create type app.settled_send as (
  workspace_id uuid,
  message_id uuid,
  attempt smallint,
  wamid text,
  is_held boolean -- Meta looks at the template first: queued until a status says more
);

-- Write down that Meta has messages, whoever says so; their states are locked. Repeating it changes nothing.
-- p_evidence: answer or status. Attempts known to be accepted already are left alone.
create function app.settle_sends(p_settled app.settled_send[], p_evidence text)
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_fresh app.settled_send[];
begin
  perform 1
  from (select distinct s.workspace_id, s.message_id from pg_catalog.unnest(p_settled) s order by 1, 2 offset 0) t
  cross join lateral (
    select from public.whatsapp_messages m where m.workspace_id = t.workspace_id and m.id = t.message_id for no key update
  ) locked;

  with told as (
    update app.send_attempts a
    set outcome = case when s.is_held then 'held' else 'accepted' end, wamid = s.wamid, evidence = p_evidence,
        settled_at = pg_catalog.clock_timestamp()
    from pg_catalog.unnest(p_settled) s
    where a.workspace_id = s.workspace_id
      and a.message_id = s.message_id
      and a.attempt = s.attempt
      and a.wamid is null
    returning s.workspace_id, s.message_id, s.attempt, s.wamid, s.is_held
  )
  select pg_catalog.array_agg(row(t.*)::app.settled_send order by t.workspace_id, t.message_id, t.attempt) into v_fresh from told t;
  if v_fresh is null then
    return 0;
  end if;

  update public.whatsapp_messages m
  set wamid = case when n.is_theirs then m.wamid else coalesce(m.wamid, f.wamid) end,
      status = app.status_of_rank(greatest(n.rank, case when f.is_held then 0 else 1 end)::smallint),
      error = case when n.rank = 2 then n.error end,
      sending = case
        when m.sending ?& array['since', 'attempt'] or p_evidence <> 'answer' or m.wamid <> f.wamid then -- it was in doubt
          pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
            'state', 'settled', 'evidence', p_evidence, 'attempt', f.attempt, 'since', m.sending -> 'since',
            'settled_at', pg_catalog.clock_timestamp(), 'sent_twice', case when m.wamid <> f.wamid then true end))
        when f.is_held and n.rank <= 0 then pg_catalog.jsonb_build_object(
          'state', 'held', 'reason', 'held', 'sentence', 'WhatsApp holds it back while it watches how the template is received.') end
  from pg_catalog.unnest(v_fresh) f
  cross join lateral (
    select coalesce(max(s.rank), -1) as rank, (pg_catalog.array_agg(s.error order by s.rank desc))[1] as error,
           exists (
             select from public.whatsapp_messages o
             where o.workspace_id = f.workspace_id and o.wamid = f.wamid and o.id <> f.message_id
               and o.channel_id = (select x.channel_id from public.whatsapp_messages x where x.workspace_id = f.workspace_id and x.id = f.message_id)
           ) as is_theirs -- history brought a copy of it first
    from app.message_states s
    where s.workspace_id = f.workspace_id
      and s.channel_id = (select x.channel_id from public.whatsapp_messages x where x.workspace_id = f.workspace_id and x.id = f.message_id)
      and s.wamid in (f.wamid, (select x.wamid from public.whatsapp_messages x where x.workspace_id = f.workspace_id and x.id = f.message_id))
  ) n
  where m.workspace_id = f.workspace_id
    and m.id = f.message_id;

  -- Whoever may hold it now has lost it: it is sent.
  perform 1
  from (
    select o.workspace_id, o.id
    from pg_catalog.unnest(v_fresh) f
    join app.send_attempts a on a.workspace_id = f.workspace_id and a.message_id = f.message_id and a.attempt = f.attempt
    join app.outbox o on o.workspace_id = a.workspace_id and o.id = a.outbox_id
    order by 1, 2
    for no key update of o
  ) locked;
  update app.outbox o
  set state = 'done', lease_token = null, lease_until = null, wait_reason = null, error = null,
      finished_at = coalesce(o.finished_at, pg_catalog.clock_timestamp())
  from pg_catalog.unnest(v_fresh) f
  join app.send_attempts a on a.workspace_id = f.workspace_id and a.message_id = f.message_id and a.attempt = f.attempt
  where o.workspace_id = a.workspace_id
    and o.id = a.outbox_id;

  -- A reaction of ours shows on the message it is about.
  insert into public.message_events (workspace_id, channel_id, wamid, kind, key, sent_at, payload)
  select m.workspace_id, m.channel_id, m.payload #>> '{reaction,message_id}', 'reaction', f.wamid, m.sent_at,
         pg_catalog.jsonb_build_object('emoji', coalesce(m.payload #>> '{reaction,emoji}', ''), 'direction', 'outbound')
  from pg_catalog.unnest(v_fresh) f
  join public.whatsapp_messages m on m.workspace_id = f.workspace_id and m.id = f.message_id
  where m.message_type = 'reaction'
  on conflict do nothing;

  perform app.count_sends(v_fresh);
  return pg_catalog.cardinality(v_fresh);
end;
$$;
revoke execute on function app.settle_sends from public;
grant execute on function app.settle_sends to service_role;

-- Count what may cost, by number and month, and how often each template was used.
create function app.count_sends(p_settled app.settled_send[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  perform app.count_template_uses(n.uses)
  from (
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'workspace_id', m.workspace_id, 'template_id', m.template_id, 'uses', 1)) as uses
    from pg_catalog.unnest(p_settled) f
    join public.whatsapp_messages m on m.workspace_id = f.workspace_id and m.id = f.message_id
    where m.template_id is not null
  ) n
  where n.uses is not null;

  insert into public.channel_usage as u (workspace_id, channel_id, month, service_messages, template_messages)
  select m.workspace_id, m.channel_id, pg_catalog.date_trunc('month', now() at time zone 'utc')::date,
         count(*) filter (where m.message_type <> 'template'), count(*) filter (where m.message_type = 'template')
  from pg_catalog.unnest(p_settled) f
  join public.whatsapp_messages m on m.workspace_id = f.workspace_id and m.id = f.message_id
  group by m.workspace_id, m.channel_id
  order by 1, 2
  on conflict (workspace_id, channel_id, month) do update
    set service_messages = u.service_messages + excluded.service_messages,
        template_messages = u.template_messages + excluded.template_messages;
end;
$$;
revoke execute on function app.count_sends from public;
grant execute on function app.count_sends to service_role;

-- Meta delivers under another number than the one written to (Argentina, Brazil, Mexico): one person goes on under it.
-- Takes the identities alone, so it comes before everything else. p_results: as finish_messages.
create function app.learn_numbers(p_results jsonb)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_link record;
begin
  for v_link in
    select r.workspace_id, c.portfolio_id, r.wamid, m.sender_wa_id, r.wa_id
    from pg_catalog.jsonb_to_recordset(p_results) as r(workspace_id uuid, message_id uuid, wamid text, wa_id text)
    cross join lateral ( -- by key, whatever the planner thinks of a young table
      select x.sender_wa_id, x.channel_id
      from public.whatsapp_messages x
      where x.workspace_id = r.workspace_id
        and x.id = r.message_id
      offset 0
    ) m
    cross join lateral (
      select x.portfolio_id
      from public.whatsapp_channels x
      where x.workspace_id = r.workspace_id
        and x.id = m.channel_id
      offset 0
    ) c
    where r.wamid is not null
      and r.wa_id <> m.sender_wa_id
      and not exists (
        select from app.identity_changes x
        where x.workspace_id = r.workspace_id and x.portfolio_id = c.portfolio_id
          and x.previous_wa_id = m.sender_wa_id and x.wa_id = r.wa_id)
    order by r.workspace_id, r.wamid
  loop
    perform app.lock_identities(array[v_link.workspace_id], true);
    insert into app.identity_changes (workspace_id, portfolio_id, wamid, previous_wa_id, wa_id, sent_at)
    values (v_link.workspace_id, v_link.portfolio_id, v_link.wamid, v_link.sender_wa_id, v_link.wa_id, now())
    on conflict do nothing;
    insert into public.contact_identities (workspace_id, portfolio_id, kind, value, user_id, contact_id, seen_at)
    select v_link.workspace_id, v_link.portfolio_id, 'wa_id', v_link.wa_id, '', i.contact_id, now()
    from public.contact_identities i
    where i.workspace_id = v_link.workspace_id and i.portfolio_id = v_link.portfolio_id
      and i.kind = 'wa_id' and i.value = v_link.sender_wa_id
    order by i.user_id
    limit 1
    on conflict do nothing;
    perform app.settle_identities(
      v_link.workspace_id, v_link.portfolio_id, '{}', array[v_link.sender_wa_id, v_link.wa_id]);
  end loop;
end;
$$;
revoke execute on function app.learn_numbers from public;
grant execute on function app.learn_numbers to service_role;

create type app.send_result as (
  workspace_id uuid,
  outbox_id uuid,
  message_id uuid,
  attempt smallint,
  lease_token uuid,
  outcome text, -- accepted, held, retry, throttled, unknown, failed, unsent
  wamid text,
  retry_in_ms bigint,
  error jsonb, -- {code, reason, title, sentence}
  then_do text
);

-- Record what came of calls.
-- p_results: [{workspace_id, outbox_id, message_id, attempt, lease_token, outcome, wamid, wa_id, retry_in_ms, error, then}].
-- outcome: accepted, held (Meta has it and looks first); retry, throttled (not sent, again in retry_in_ms; throttled by the
--   pair if error.reason says so); unsent (never called); unknown (it may have left); failed (for good).
-- p_grace_ms: how long its status webhook may settle one in doubt; shown on the row.
-- Returns {settled, lost}: a lost lease records nothing, but that Meta has the message.
create function public.finish_messages(p_results jsonb, p_grace_ms integer default 300000)
returns jsonb
language plpgsql
security invoker
set search_path = ''
set enable_seqscan = off
set random_page_cost = 1.1
set plan_cache_mode = force_custom_plan
set jit = off
as $$
declare
  v_now timestamptz;
  v_results app.send_result[];
  v_held app.send_result[]; -- those whose lease is still theirs
  v_behind uuid[];
  v_settled integer := 0;
begin
  perform app.learn_numbers(p_results);
  v_now := pg_catalog.clock_timestamp();
  select pg_catalog.array_agg(row(
    r.workspace_id, r.outbox_id, r.message_id, r.attempt, r.lease_token, r.outcome, r.wamid, r.retry_in_ms, r.error, r."then")::app.send_result
    order by r.workspace_id, r.message_id)
  into v_results
  from pg_catalog.jsonb_to_recordset(p_results) as r(
    workspace_id uuid, outbox_id uuid, message_id uuid, attempt smallint, lease_token uuid, outcome text, wamid text,
    retry_in_ms bigint, error jsonb, "then" text);

  insert into app.message_states as s (workspace_id, channel_id, wamid, rank)
  select r.workspace_id, m.channel_id, r.wamid, case r.outcome when 'held' then 0 else 1 end
  from pg_catalog.unnest(v_results) r
  join public.whatsapp_messages m on m.workspace_id = r.workspace_id and m.id = r.message_id
  where r.outcome in ('accepted', 'held')
  order by 1, 2, 3
  on conflict (workspace_id, channel_id, wamid) do update
    set rank = greatest(s.rank, excluded.rank);

  perform 1
  from (select distinct r.workspace_id, r.message_id from pg_catalog.unnest(v_results) r order by 1, 2 offset 0) t
  cross join lateral (
    select from public.whatsapp_messages m where m.workspace_id = t.workspace_id and m.id = t.message_id for no key update
  ) locked;
  v_settled := app.settle_sends((
    select pg_catalog.array_agg(row(r.workspace_id, r.message_id, r.attempt, r.wamid, r.outcome = 'held')::app.settled_send)
    from pg_catalog.unnest(v_results) r
    where r.outcome in ('accepted', 'held')), 'answer');

  select pg_catalog.array_agg(l.r) into v_held
  from (
    select r
    from pg_catalog.unnest(v_results) r
    join app.outbox o on o.workspace_id = r.workspace_id and o.id = r.outbox_id and o.lease_token = r.lease_token
    where r.outcome not in ('accepted', 'held')
    order by r.workspace_id, r.outbox_id
    for no key update of o
  ) l;

  if v_held is not null then
    update app.send_attempts a
    set outcome = case r.outcome when 'failed' then 'refused' when 'retry' then 'put_off' else r.outcome end,
        evidence = case when r.outcome <> 'unknown' then 'answer' end,
        meta_code = (r.error ->> 'code')::integer,
        settled_at = case when r.outcome <> 'unknown' then v_now end
    from pg_catalog.unnest(v_held) r
    where a.workspace_id = r.workspace_id
      and a.message_id = r.message_id
      and a.attempt = r.attempt;

    update public.whatsapp_messages m
    set status = case when r.outcome = 'failed' and m.status = 'queued' then 'failed' else m.status end,
        error = case when r.outcome = 'failed' and m.status = 'queued' then r.error else m.error end,
        sending = case r.outcome
          when 'failed' then null
          when 'unknown' then pg_catalog.jsonb_build_object(
            'state', 'in_doubt', 'reason', r.error ->> 'reason', 'sentence', r.error ->> 'sentence', 'attempt', r.attempt,
            'since', a.started_at, 'until', a.started_at + pg_catalog.make_interval(secs => p_grace_ms / 1000.0))
          when 'unsent' then m.sending
          else pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
            'state', 'retrying', 'reason', r.error ->> 'reason', 'sentence', r.error ->> 'sentence', 'attempt', r.attempt,
            'since', m.sending -> 'since', -- an earlier attempt is in doubt still
            'until', v_now + pg_catalog.make_interval(secs => coalesce(r.retry_in_ms, 0) / 1000.0))) end
    from pg_catalog.unnest(v_held) r
    join app.send_attempts a on a.workspace_id = r.workspace_id and a.message_id = r.message_id and a.attempt = r.attempt
    where m.workspace_id = r.workspace_id
      and m.id = r.message_id
      and r.outcome <> 'unsent';

    update app.outbox o
    set state = case when r.outcome = 'failed' then 'failed' when r.outcome = 'unknown' then 'in_doubt'
                     when coalesce(r.retry_in_ms, 0) > 0 then 'waiting' else 'due' end,
        wait_reason = case when r.outcome in ('retry', 'throttled', 'unsent') and coalesce(r.retry_in_ms, 0) > 0
                        then case when r.error ->> 'reason' = 'rate_limit_pair' then 'pair' else 'backoff' end end,
        next_attempt_at = v_now + pg_catalog.make_interval(secs => coalesce(r.retry_in_ms, 0) / 1000.0),
        doubt_since = case when r.outcome = 'unknown' then a.started_at else o.doubt_since end,
        lease_token = null, lease_until = null, error = r.error,
        finished_at = case when r.outcome = 'failed' then v_now end
    from pg_catalog.unnest(v_held) r
    join app.send_attempts a on a.workspace_id = r.workspace_id and a.message_id = r.message_id and a.attempt = r.attempt
    where o.workspace_id = r.workspace_id
      and o.id = r.outbox_id;

    perform app.queue_chore(
      o.workspace_id, o.channel_id, 'aftermath', pg_catalog.jsonb_build_object('then', r.then_do, 'reason', r.error ->> 'reason'),
      1::smallint, interval '1 day', p_message_id => r.message_id)
    from pg_catalog.unnest(v_held) r
    join app.outbox o on o.workspace_id = r.workspace_id and o.id = r.outbox_id
    where coalesce(r.then_do, 'nothing') <> 'nothing';
  end if;

  -- What stood behind them may go. Its row is waited for, whatever its state: a claim may be about to park it.
  select pg_catalog.array_agg(n.id) into v_behind
  from (
    select distinct f.workspace_id, f.lane, f.priority
    from pg_catalog.unnest(v_results) r
    join app.outbox f on f.workspace_id = r.workspace_id and f.id = r.outbox_id
    where f.state not in ('due', 'waiting')
    order by 1, 2, 3
    offset 0
  ) l
  cross join lateral (
    select x.id
    from app.outbox x
    where x.workspace_id = l.workspace_id and x.lane = l.lane and x.priority = l.priority
      and x.kind = 'message'
      and x.state in ('due', 'waiting')
      and x.wait_reason is distinct from 'scheduled'
      and (x.wait_reason is distinct from 'backoff' or not x.is_marketing)
    order by x.place
    limit 1
  ) n;
  perform 1
  from (select distinct r.workspace_id from pg_catalog.unnest(v_results) r) w
  join app.outbox o on o.workspace_id = w.workspace_id and o.id = any (v_behind)
  order by o.workspace_id, o.id
  for no key update of o;
  update app.outbox o
  set state = 'due', wait_reason = null, next_attempt_at = v_now
  where o.workspace_id in (select r.workspace_id from pg_catalog.unnest(v_results) r)
    and o.id = any (v_behind)
    and o.state = 'waiting'
    and o.wait_reason = 'behind';

  return pg_catalog.jsonb_build_object('settled', v_settled,
    'lost', (select count(*) from pg_catalog.unnest(v_results) r where r.outcome not in ('accepted', 'held'))
      - coalesce(pg_catalog.cardinality(v_held), 0));
end;
$$;
revoke execute on function public.finish_messages from public, anon, authenticated;
grant execute on function public.finish_messages to service_role;

-- Fail messages that are still queued, for good. Locks messages, then the outbox. Returns how many.
-- p_rows: [{workspace_id, outbox_id, message_id}]; p_states: the outbox states in which it may still be failed;
-- p_expired_by: only if it is still too old by then (a resumed bulk send begins its time anew).
create function app.fail_queued(p_rows jsonb, p_states text[], p_state text, p_error jsonb, p_expired_by timestamptz default 'infinity')
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_failed jsonb;
begin
  perform 1
  from (
    select distinct r.workspace_id, r.message_id
    from pg_catalog.jsonb_to_recordset(p_rows) as r(workspace_id uuid, message_id uuid)
    order by 1, 2 offset 0
  ) t
  cross join lateral (
    select from public.whatsapp_messages m where m.workspace_id = t.workspace_id and m.id = t.message_id for no key update
  ) locked;
  with locked as (
    select o.workspace_id, o.id
    from pg_catalog.jsonb_to_recordset(p_rows) as r(workspace_id uuid, outbox_id uuid)
    join app.outbox o on o.workspace_id = r.workspace_id and o.id = r.outbox_id
    where o.state = any (p_states)
      and o.lease_token is null
      and (p_expired_by = 'infinity' or o.expires_at <= p_expired_by)
    order by 1, 2
    for no key update of o
  ), failed as (
    update app.outbox o
    set state = p_state, finished_at = pg_catalog.clock_timestamp(), error = p_error
    from locked l
    where o.workspace_id = l.workspace_id
      and o.id = l.id
    returning o.workspace_id, o.message_id
  )
  select pg_catalog.jsonb_agg(f) into v_failed from failed f;
  update public.whatsapp_messages m
  set status = 'failed', error = p_error, sending = null
  from pg_catalog.jsonb_to_recordset(v_failed) as f(workspace_id uuid, message_id uuid)
  where m.workspace_id = f.workspace_id
    and m.id = f.message_id
    and m.status = 'queued';
  return coalesce(pg_catalog.jsonb_array_length(v_failed), 0);
end;
$$;
revoke execute on function app.fail_queued from public;
grant execute on function app.fail_queued to service_role;

-- Lock the messages that tending is about to change, all at once and in key order, before anything else: it goes through
-- them by what is the matter, and locking as it goes it would meet others that go by key.
create function app.lock_tended(p_now timestamptz, p_grace interval)
returns void
language plpgsql
set search_path = ''
as $$
begin
  perform 1
  from (
    (select o.workspace_id, o.message_id from app.outbox o
     where o.lease_token is not null and o.lease_until < p_now and o.kind = 'message'
     order by o.lease_until limit 500)
    union
    (select o.workspace_id, o.message_id from app.outbox o
     where o.state = 'in_doubt' and o.doubt_since + p_grace <= p_now
     order by o.next_attempt_at limit 500)
    union
    (select o.workspace_id, o.message_id from app.outbox o
     where o.state in ('due', 'waiting', 'held', 'in_doubt') and o.expires_at <= p_now and o.lease_token is null and o.kind = 'message'
     order by o.expires_at limit 1000)
    union
    (select o.workspace_id, o.message_id from app.outbox o
     where o.state = 'held' and o.next_attempt_at = '-infinity'
     order by o.workspace_id, o.id limit 500)
    order by 1, 2
    offset 0
  ) t
  cross join lateral (
    select from public.whatsapp_messages m where m.workspace_id = t.workspace_id and m.id = t.message_id for no key update
  ) locked;
end;
$$;
revoke execute on function app.lock_tended from public;
grant execute on function app.lock_tended to service_role;

-- Tell of messages that a claim has stopped: those that must not go any more are cancelled, the others say why they wait.
-- Claims cannot do it themselves: they hold the outbox, and messages are locked before it.
create function app.tell_stopped()
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_stopped record;
begin
  for v_stopped in
    select x.error, pg_catalog.jsonb_agg(x) as rows
    from (
      select o.workspace_id, o.id as outbox_id, o.message_id, o.error
      from app.outbox o
      where o.state = 'held'
        and o.next_attempt_at = '-infinity'
      order by o.workspace_id, o.id
      limit 500
    ) x
    group by x.error
  loop
    if v_stopped.error ->> 'reason' <> 'marketing_paused' then
      perform app.fail_queued(v_stopped.rows, array['held'], 'cancelled', v_stopped.error);
      continue;
    end if;
    update public.whatsapp_messages m
    set sending = pg_catalog.jsonb_build_object(
      'state', 'held', 'reason', v_stopped.error ->> 'reason', 'sentence', v_stopped.error ->> 'sentence', 'since', now())
    from pg_catalog.jsonb_to_recordset(v_stopped.rows) as r(workspace_id uuid, message_id uuid)
    where m.workspace_id = r.workspace_id
      and m.id = r.message_id;
    update app.outbox o
    set next_attempt_at = now()
    from pg_catalog.jsonb_to_recordset(v_stopped.rows) as r(workspace_id uuid, outbox_id uuid)
    where o.workspace_id = r.workspace_id
      and o.id = r.outbox_id
      and o.state = 'held';
  end loop;
end;
$$;
revoke execute on function app.tell_stopped from public;
grant execute on function app.tell_stopped to service_role;

-- Let marketing go on that was stopped while its number might send none. Locks messages, then the outbox. Returns how many.
create function app.release_marketing(p_workspace_id uuid, p_channel_id uuid)
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_ids uuid[] := array(
    select o.id
    from app.outbox o
    where o.workspace_id = p_workspace_id
      and o.channel_id = p_channel_id
      and o.state = 'held'
      and o.doubt_since is null
      and o.error ->> 'reason' = 'marketing_paused'
      and not exists ( -- its own resumption lets those go
        select from public.bulk_sends b
        where b.workspace_id = o.workspace_id and b.id = o.bulk_id and b.state <> 'running'));
begin
  perform 1
  from app.outbox o
  join public.whatsapp_messages m on m.workspace_id = o.workspace_id and m.id = o.message_id
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids)
  order by m.id
  for no key update of m;
  update public.whatsapp_messages m
  set sending = null
  from app.outbox o
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids)
    and o.state = 'held'
    and m.workspace_id = o.workspace_id
    and m.id = o.message_id
    and m.sending ->> 'reason' = 'marketing_paused';
  perform 1 from app.outbox o where o.workspace_id = p_workspace_id and o.id = any (v_ids) order by o.id for no key update;
  update app.outbox o
  set state = 'due', next_attempt_at = now(), error = null
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids)
    and o.state = 'held';
  return pg_catalog.cardinality(v_ids);
end;
$$;
revoke execute on function app.release_marketing from public;
grant execute on function app.release_marketing to parley_writer, service_role;

-- What nobody holds: let those whose time has come go, put dead leases in doubt, decide what was long enough in doubt, give
-- up what is too old, forget what is long done. Any dispatcher, every second or two; one at a time.
-- p_grace_ms: how long a status webhook has to settle a message in doubt.
-- p_intake_is_current: nothing waits in the stream; this looks at the rest of our intake itself.
-- Returns {ripened, doubted, again, held, given_up, too_old, forgotten}; {} when another is at it.
create function public.tend_outbox(p_grace_ms integer, p_intake_is_current boolean)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_grace interval := pg_catalog.make_interval(secs => p_grace_ms / 1000.0);
  v_rows jsonb;
  v_ripened integer := 0;
  v_doubted integer := 0;
  v_decided jsonb := '{}';
  v_given_up integer := 0;
  v_too_old integer := 0;
  v_forgotten integer := 0;
begin
  if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('app.outbox tend', 0)) then
    return '{}';
  end if;

  perform app.lock_tended(v_now, v_grace);
  v_doubted := app.doubt_dead_leases(v_now, v_grace);
  v_decided := app.decide_doubts(v_now, v_grace, p_intake_is_current);

  perform app.tell_stopped();

  -- Too old, and never sent. What was in doubt once, decide_doubts gives up.
  select pg_catalog.jsonb_agg(x) into v_rows
  from (
    select o.workspace_id, o.id as outbox_id, o.message_id
    from app.outbox o
    where o.state in ('due', 'waiting', 'held')
      and o.expires_at <= v_now
      and o.lease_token is null
      and o.kind = 'message'
      and o.doubt_since is null
    order by o.expires_at
    limit 500
  ) x;
  v_too_old := app.fail_queued(coalesce(v_rows, '[]'), array['due', 'waiting', 'held'], 'expired', app.send_error(
    'too_old', 'Not sent in time', 'It could not be sent in time and was given up; send it again if it still matters.'),
    v_now);

  update app.outbox o
  set state = 'due', wait_reason = null
  from (
    select x.workspace_id, x.id
    from app.outbox x
    where x.state = 'waiting'
      and x.next_attempt_at <= v_now
      and x.expires_at > v_now
    order by x.next_attempt_at
    limit 2000
    for no key update skip locked
  ) r
  where o.workspace_id = r.workspace_id
    and o.id = r.id;
  get diagnostics v_ripened = row_count;

  update app.outbox o
  set state = 'expired', finished_at = v_now, lease_token = null, lease_until = null
  from (
    select x.workspace_id, x.id
    from app.outbox x
    where x.state = 'due'
      and x.kind <> 'message'
      and x.expires_at <= v_now
      and (x.lease_until is null or x.lease_until < v_now)
    order by x.expires_at
    limit 500
    for no key update skip locked
  ) r
  where o.workspace_id = r.workspace_id
    and o.id = r.id;

  delete from app.outbox o
  where o.ctid in (
    select x.ctid from app.outbox x where x.finished_at < v_now - interval '7 days' order by x.finished_at limit 1000
    for update skip locked);
  get diagnostics v_forgotten = row_count;
  delete from app.send_requests r
  where r.ctid in (
    select x.ctid from app.send_requests x where x.created_at < v_now - interval '7 days' limit 1000 for update skip locked);

  return pg_catalog.jsonb_build_object(
    'ripened', v_ripened, 'doubted', v_doubted, 'too_old', v_too_old, 'forgotten', v_forgotten) || v_decided;
end;
$$;
revoke execute on function public.tend_outbox from public, anon, authenticated;
grant execute on function public.tend_outbox to service_role;

-- Messages whose dispatcher died or hangs: it may have called Meta. Returns how many.
create function app.doubt_dead_leases(p_now timestamptz, p_grace interval)
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_dead jsonb;
begin
  select pg_catalog.jsonb_agg(x) into v_dead
  from (
    select o.workspace_id, o.id as outbox_id, o.message_id
    from app.outbox o
    where o.lease_token is not null
      and o.lease_until < p_now
      and o.kind = 'message'
    order by o.lease_until
    limit 500
  ) x;
  if v_dead is null then
    return 0;
  end if;
  perform 1
  from (
    select d.workspace_id, d.message_id
    from pg_catalog.jsonb_to_recordset(v_dead) as d(workspace_id uuid, message_id uuid)
    order by 1, 2 offset 0
  ) t
  cross join lateral (
    select from public.whatsapp_messages m where m.workspace_id = t.workspace_id and m.id = t.message_id for no key update
  ) locked;

  with locked as (
    select o.workspace_id, o.id
    from pg_catalog.jsonb_to_recordset(v_dead) as d(workspace_id uuid, outbox_id uuid)
    join app.outbox o on o.workspace_id = d.workspace_id and o.id = d.outbox_id
    where o.lease_token is not null
      and o.lease_until < p_now
    order by 1, 2
    for no key update of o
  ), doubted as (
    update app.outbox o
    set state = 'in_doubt', lease_token = null, lease_until = null, doubt_since = a.started_at, next_attempt_at = a.started_at + p_grace
    from locked l
    join app.outbox x on x.workspace_id = l.workspace_id and x.id = l.id
    join app.send_attempts a on a.workspace_id = x.workspace_id and a.message_id = x.message_id and a.attempt = x.attempts
    where o.workspace_id = l.workspace_id
      and o.id = l.id
    returning o.workspace_id, o.message_id, o.attempts, o.doubt_since
  ), told as (
    update app.send_attempts a
    set outcome = 'unknown'
    from doubted d
    where a.workspace_id = d.workspace_id
      and a.message_id = d.message_id
      and a.attempt = d.attempts
  )
  select pg_catalog.jsonb_agg(d) into v_dead from doubted d;
  update public.whatsapp_messages m
  set sending = pg_catalog.jsonb_build_object(
    'state', 'in_doubt', 'reason', 'dispatcher_lost', 'attempt', d.attempts, 'since', d.doubt_since, 'until', d.doubt_since + p_grace,
    'sentence', 'Nobody knows yet whether WhatsApp has it; its delivery report will tell.')
  from pg_catalog.jsonb_to_recordset(v_dead) as d(workspace_id uuid, message_id uuid, attempts smallint, doubt_since timestamptz)
  where m.workspace_id = d.workspace_id
    and m.id = d.message_id;
  return coalesce(pg_catalog.jsonb_array_length(v_dead), 0);
end;
$$;
revoke execute on function app.doubt_dead_leases from public;
grant execute on function app.doubt_dead_leases to service_role;

-- Decide about messages in doubt for longer than the grace, if the silence means something: our intake is up to date, and
-- the number's webhooks have reached a minute past the attempt.
-- Marketing waits for a person; others are tried again, twice at most. One whose number hears nothing stays in doubt until
-- it expires. Returns {again, held, given_up}.
create function app.decide_doubts(p_now timestamptz, p_grace interval, p_intake_is_current boolean)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_rows jsonb;
  v_given_up integer := 0;
  v_decided jsonb;
begin
  -- Nobody will ever know, and it is too late to matter.
  select pg_catalog.jsonb_agg(x) into v_rows
  from (
    select o.workspace_id, o.id as outbox_id, o.message_id
    from app.outbox o
    where o.state in ('in_doubt', 'held', 'due', 'waiting') -- due and waiting: it was to be tried again
      and o.doubt_since is not null
      and o.expires_at <= p_now
      and o.doubt_since + p_grace <= p_now
      and o.lease_token is null
    order by o.expires_at
    limit 500
  ) x;
  if v_rows is not null then
    v_given_up := app.fail_queued(v_rows, array['in_doubt', 'held', 'due', 'waiting'], 'failed', app.send_error(
      'outcome_unknown', 'Outcome unknown', 'Nobody knows whether WhatsApp sent it. Ask the customer before you send it again.'),
      p_now);
  end if;
  if not p_intake_is_current or exists (select from app.webhook_bodies b where b.state = 'new') then
    return pg_catalog.jsonb_build_object('again', 0, 'held', 0, 'given_up', v_given_up);
  end if;

  select pg_catalog.jsonb_agg(x) into v_rows
  from (
    select o.workspace_id, o.id as outbox_id, o.message_id, o.is_marketing,
           (select count(*) from app.send_attempts a
            where a.workspace_id = o.workspace_id and a.outbox_id = o.id and a.outcome = 'unknown') as doubts
    from app.outbox o
    join public.channel_intake k on k.workspace_id = o.workspace_id and k.channel_id = o.channel_id
    where o.state = 'in_doubt'
      and o.doubt_since + p_grace <= p_now
      and o.expires_at > p_now
      and k.newest_sent_at >= o.doubt_since + interval '1 minute'
      -- What was set aside might be its status.
      and not exists (select from app.quarantine q where q.state = 'open' and q.body_received_at >= o.doubt_since)
    order by o.next_attempt_at
    limit 500
  ) x;
  if v_rows is null then
    return pg_catalog.jsonb_build_object('again', 0, 'held', 0, 'given_up', v_given_up);
  end if;
  perform 1
  from (
    select r.workspace_id, r.message_id from pg_catalog.jsonb_to_recordset(v_rows) as r(workspace_id uuid, message_id uuid)
    order by 1, 2 offset 0
  ) t
  cross join lateral (
    select from public.whatsapp_messages m where m.workspace_id = t.workspace_id and m.id = t.message_id for no key update
  ) locked;
  with locked as (
    select o.workspace_id, o.id, r.doubts
    from pg_catalog.jsonb_to_recordset(v_rows) as r(workspace_id uuid, outbox_id uuid, doubts integer)
    join app.outbox o on o.workspace_id = r.workspace_id and o.id = r.outbox_id
    where o.state = 'in_doubt'
    order by 1, 2
    for no key update of o
  ), decided as (
    update app.outbox o
    set state = case when o.is_marketing then 'held' when l.doubts > 2 then 'failed' else 'due' end,
        next_attempt_at = p_now,
        finished_at = case when not o.is_marketing and l.doubts > 2 then p_now end
    from locked l
    where o.workspace_id = l.workspace_id
      and o.id = l.id
    returning o.workspace_id, o.message_id, o.state, o.attempts, o.doubt_since
  ), told as (
    update app.send_attempts a
    set evidence = 'silence'
    from decided d
    where a.workspace_id = d.workspace_id
      and a.message_id = d.message_id
      and a.outcome = 'unknown'
      and a.evidence is null
  )
  select pg_catalog.jsonb_agg(d) into v_decided from decided d;
  update public.whatsapp_messages m
  set status = case when d.state = 'failed' and m.status = 'queued' then 'failed' else m.status end,
      error = case when d.state = 'failed' and m.status = 'queued' then app.send_error(
        'outcome_unknown', 'Outcome unknown', 'Nobody knows whether WhatsApp sent it. Ask the customer before you send it again.') end,
      sending = case d.state
        when 'due' then pg_catalog.jsonb_build_object(
          'state', 'retrying', 'reason', 'no_status_came', 'attempt', d.attempts, 'since', d.doubt_since, 'evidence', 'silence',
          'sentence', 'No delivery report came, so it is sent again.')
        when 'held' then pg_catalog.jsonb_build_object(
          'state', 'held', 'reason', 'no_status_came', 'attempt', d.attempts, 'since', d.doubt_since, 'evidence', 'silence',
          'sentence', 'Nobody knows whether WhatsApp sent it; decide whether to send it again.') end
  from pg_catalog.jsonb_to_recordset(v_decided) as d(workspace_id uuid, message_id uuid, state text, attempts smallint, doubt_since timestamptz)
  where m.workspace_id = d.workspace_id
    and m.id = d.message_id;
  return pg_catalog.jsonb_build_object(
    'again', (select count(*) from pg_catalog.jsonb_to_recordset(v_decided) as d(state text) where d.state = 'due'),
    'held', (select count(*) from pg_catalog.jsonb_to_recordset(v_decided) as d(state text) where d.state = 'held'),
    'given_up', v_given_up + (select count(*) from pg_catalog.jsonb_to_recordset(v_decided) as d(state text) where d.state = 'failed'));
end;
$$;
revoke execute on function app.decide_doubts from public;
grant execute on function app.decide_doubts to service_role;

-- Claim chores of the kinds the caller can do, taking turns among workspaces. A dead lease is taken over: they may be repeated.
-- Numbers that are paused or held wait, but for what mends them and what needs no number.
-- Returns [{workspace_id, id, channel_id, phone_number_id, waba_id, token_sealed, key_id, kind, payload, lane, message_id, attempt,
--   expires_at}].
create function public.claim_chores(p_kinds jsonb, p_most integer, p_lease_token uuid, p_lease_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
set enable_seqscan = off
set plan_cache_mode = force_custom_plan
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_kinds text[] := array(select k from pg_catalog.jsonb_array_elements_text(p_kinds) k);
  v_claimed jsonb;
begin
  with recursive spaces as (
    (select o.workspace_id from app.outbox o where o.kind <> 'message' and o.state = 'due' order by o.workspace_id limit 1)
    union all
    select n.workspace_id
    from spaces s
    cross join lateral (
      select o.workspace_id
      from app.outbox o
      where o.kind <> 'message' and o.state = 'due' and o.workspace_id > s.workspace_id
      order by o.workspace_id
      limit 1
    ) n
  ), due as (
    select c.workspace_id, c.id
    from spaces s
    cross join lateral (
      select o.workspace_id, o.id, pg_catalog.row_number() over (order by o.priority, o.next_attempt_at) as turn, o.priority
      from app.outbox o
      join public.whatsapp_channels h on h.workspace_id = o.workspace_id and h.id = o.channel_id
      where o.workspace_id = s.workspace_id
        and o.kind <> 'message'
        and o.state = 'due'
        and o.kind = any (v_kinds)
        and o.next_attempt_at <= v_now
        and o.expires_at > v_now
        and (o.lease_until is null or o.lease_until < v_now)
        and (o.kind in ('media_delete', 'aftermath')
          or exists (select from app.channel_tokens t where t.workspace_id = h.workspace_id and t.channel_id = h.id)
            and (o.kind = 'channel_check' -- of a disconnected one, too: it has a token only while it is being connected
              or o.kind = 'channel_subscribe' and h.state <> 'disconnected'
              or h.state = 'connected' and (h.hold_reason is null or coalesce(h.hold_until, 'infinity') <= v_now)))
      order by o.priority, o.next_attempt_at
      limit p_most
    ) c
    order by c.turn, c.priority
    limit p_most
  ), locked as (
    select o.workspace_id, o.id
    from due d
    join app.outbox o on o.workspace_id = d.workspace_id and o.id = d.id
    where o.state = 'due'
      and (o.lease_until is null or o.lease_until < v_now)
    for no key update of o skip locked
  ), claimed as (
    update app.outbox o
    set lease_token = p_lease_token,
        lease_until = v_now + pg_catalog.make_interval(secs => p_lease_ms / 1000.0),
        attempts = o.attempts + 1
    from locked l
    where o.workspace_id = l.workspace_id
      and o.id = l.id
    returning o.*
  )
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'workspace_id', c.workspace_id, 'id', c.id, 'channel_id', c.channel_id, 'phone_number_id', h.phone_number_id,
    'waba_id', h.waba_id, 'token_sealed', t.token_sealed, 'key_id', t.key_id, 'kind', c.kind, 'payload', c.payload, 'lane', c.lane,
    'message_id', c.message_id, 'attempt', c.attempts, 'expires_at', c.expires_at) order by c.priority, c.next_attempt_at)
  into v_claimed
  from claimed c
  join public.whatsapp_channels h on h.workspace_id = c.workspace_id and h.id = c.channel_id
  left join app.channel_tokens t on t.workspace_id = h.workspace_id and t.channel_id = h.id;
  return coalesce(v_claimed, '[]');
end;
$$;
revoke execute on function public.claim_chores from public, anon, authenticated;
grant execute on function public.claim_chores to service_role;

-- Record what came of chores. p_results: [{workspace_id, id, lease_token, outcome: done | retry | failed, retry_in_ms, error}].
-- Returns how many; a lost lease records nothing.
create function public.finish_chores(p_results jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_count integer;
begin
  with held as (
    select o.workspace_id, o.id, o.kind, o.lane, r.outcome, r.retry_in_ms, r.error
    from pg_catalog.jsonb_to_recordset(p_results) as r(
      workspace_id uuid, id uuid, lease_token uuid, outcome text, retry_in_ms bigint, error jsonb)
    join app.outbox o on o.workspace_id = r.workspace_id and o.id = r.id and o.lease_token = r.lease_token
    order by o.workspace_id, o.id
    for no key update of o
  )
  update app.outbox o
  set state = case h.outcome when 'done' then 'done' when 'failed' then 'failed'
                else case when twin.id is null then 'due' else 'done' end end, -- another read mark is there: it does for both
      next_attempt_at = v_now + pg_catalog.make_interval(secs => coalesce(h.retry_in_ms, 0) / 1000.0),
      lease_token = null, lease_until = null, error = h.error,
      finished_at = case when h.outcome in ('done', 'failed') or twin.id is not null then v_now end
  from held h
  left join lateral (
    select x.id
    from app.outbox x
    where x.workspace_id = h.workspace_id and x.lane = h.lane and h.kind = 'mark_read' and x.kind = 'mark_read'
      and x.state = 'due' and x.lease_token is null and x.id <> h.id
    union all
    select x.id
    from held x
    where x.workspace_id = h.workspace_id and x.lane = h.lane and h.kind = 'mark_read' and x.kind = 'mark_read'
      and x.outcome = 'retry' and x.id < h.id
    limit 1
  ) twin on true
  where o.workspace_id = h.workspace_id
    and o.id = h.id;
  get diagnostics v_count = row_count;
  return pg_catalog.to_jsonb(v_count);
end;
$$;
revoke execute on function public.finish_chores from public, anon, authenticated;
grant execute on function public.finish_chores to service_role;

-- Let go what waited for a file to reach Meta. Returns how many.
create function public.release_media_waiters(p_workspace_id uuid, p_channel_id uuid, p_media_id uuid)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_count integer;
begin
  with waiters as (
    select o.workspace_id, o.id
    from app.outbox o
    where o.workspace_id = p_workspace_id
      and o.channel_id = p_channel_id
      and o.kind = 'message'
      and o.state = 'waiting'
      and o.wait_reason = 'media'
      and o.payload -> 'media_ids' ? p_media_id::text
    order by o.workspace_id, o.id
    for no key update
  )
  update app.outbox o
  set state = 'due', wait_reason = null, next_attempt_at = now()
  from waiters w
  where o.workspace_id = w.workspace_id
    and o.id = w.id;
  get diagnostics v_count = row_count;
  return pg_catalog.to_jsonb(v_count);
end;
$$;
revoke execute on function public.release_media_waiters from public, anon, authenticated;
grant execute on function public.release_media_waiters to service_role;

-- Fail what waits for a file that will not reach Meta. p_error: {code, reason, title, sentence}. Returns how many.
create function public.fail_media_waiters(p_workspace_id uuid, p_channel_id uuid, p_media_id uuid, p_error jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_rows jsonb;
begin
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'workspace_id', o.workspace_id, 'outbox_id', o.id, 'message_id', o.message_id)), '[]')
  into v_rows
  from app.outbox o
  where o.workspace_id = p_workspace_id
    and o.channel_id = p_channel_id
    and o.kind = 'message'
    and o.state in ('waiting', 'held')
    and o.doubt_since is null -- that one had it
    and o.payload -> 'media_ids' ? p_media_id::text;
  return pg_catalog.to_jsonb(app.fail_queued(v_rows, array['waiting', 'held'], 'failed', p_error));
end;
$$;
revoke execute on function public.fail_media_waiters from public, anon, authenticated;
grant execute on function public.fail_media_waiters to service_role;

-- Hold all sending through a number until a person resumes it, and tell the operators. Paused already: fine.
-- p_reason: our code of why.
create function public.pause_channel(p_workspace_id uuid, p_channel_id uuid, p_reason text)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
begin
  update public.whatsapp_channels c
  set state = 'paused', paused_reason = p_reason, paused_at = now()
  where c.workspace_id = p_workspace_id
    and c.id = p_channel_id
    and c.state = 'connected';
  if found then
    perform app.tell_operators(p_workspace_id, p_channel_id, 'sending_paused', 'critical', p_reason);
    perform app.audit(p_workspace_id, 'channel.paused', p_channel_id, '{"state": "connected"}',
      pg_catalog.jsonb_build_object('state', 'paused', 'reason', p_reason), 'meta');
  end if;
  return '{}';
end;
$$;
revoke execute on function public.pause_channel from public, anon, authenticated;
grant execute on function public.pause_channel to service_role;

-- Put something of ours beside what Meta tells of an account, where operators look.
create function app.tell_operators(p_workspace_id uuid, p_channel_id uuid, p_event text, p_severity text, p_reason text)
returns void
language sql
set search_path = ''
as $$
  insert into public.account_events (workspace_id, id, field, event, severity, channel_id, waba_id, happened_at, payload, digest)
  select c.workspace_id, pg_catalog.gen_random_uuid(), 'sending', p_event, p_severity, c.id, c.waba_id, now(),
         pg_catalog.jsonb_build_object('reason', p_reason),
         pg_catalog.sha256(pg_catalog.convert_to(p_event || ' ' || c.id || ' ' || now(), 'UTF8'))
  from public.whatsapp_channels c
  where c.workspace_id = p_workspace_id
    and c.id = p_channel_id
  on conflict do nothing;
$$;
revoke execute on function app.tell_operators from public;
grant execute on function app.tell_operators to service_role;

-- Do what a refusal of Meta's asks for besides the message's own fate. Repeatable.
-- p_then: pause_channel, pause_marketing, pause_template, resync_templates, opt_out; anything else does nothing.
create function public.apply_then(p_workspace_id uuid, p_channel_id uuid, p_message_id uuid, p_then text, p_reason text)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_message public.whatsapp_messages;
  v_template public.whatsapp_templates;
  v_ms bigint := pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp()) * 1000);
begin
  select * into v_message from public.whatsapp_messages m where m.workspace_id = p_workspace_id and m.id = p_message_id;
  case p_then
    when 'pause_channel' then
      perform public.pause_channel(p_workspace_id, p_channel_id, p_reason);
    when 'pause_marketing' then
      update public.whatsapp_channels c
      set marketing_paused_at = now()
      where c.workspace_id = p_workspace_id
        and c.id = p_channel_id
        and c.marketing_paused_at is null;
      if found then
        perform app.tell_operators(p_workspace_id, p_channel_id, 'marketing_paused', 'critical', p_reason);
      end if;
    when 'pause_template' then
      select * into v_template
      from public.whatsapp_templates t
      where t.workspace_id = p_workspace_id and t.id = v_message.template_id;
      if v_template.status = 'approved' then
        perform app.merge_template_facts(p_workspace_id, v_template.waba_id, v_template.template_name, v_template.language,
          pg_catalog.jsonb_build_object('status', pg_catalog.jsonb_build_array(
            v_ms, case p_reason when 'template_disabled' then 'disabled' else 'paused' end, null, null)));
      end if;
      perform app.queue_chore(p_workspace_id, p_channel_id, 'template_sync', '{}', 5::smallint, interval '1 hour');
    when 'resync_templates' then
      perform app.queue_chore(p_workspace_id, p_channel_id, 'template_sync', '{}', 5::smallint, interval '1 hour')
      where not exists (
        select from app.outbox o
        where o.workspace_id = p_workspace_id and o.channel_id = p_channel_id and o.kind = 'template_sync' and o.state = 'due');
    when 'opt_out' then
      perform app.lock_identities(array[p_workspace_id], false);
      update public.contacts c
      set facts = app.later_facts(c.facts, pg_catalog.jsonb_build_object('marketing', pg_catalog.jsonb_build_array(v_ms, 'stop')))
      where c.workspace_id = p_workspace_id
        and c.id = v_message.contact_id;
      perform app.show_person_facts(p_workspace_id, array[v_message.contact_id]);
    else
      null;
  end case;
  return '{}';
end;
$$;
revoke execute on function public.apply_then from public, anon, authenticated;
grant execute on function public.apply_then to service_role;

-- What an operator watches of sending. Called by: the dispatcher, for its metrics.
create function public.outbox_health()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'due', (select count(*) from app.outbox where kind = 'message' and state = 'due'),
    'waiting', (select count(*) from app.outbox where state = 'waiting'),
    'in_doubt', (select count(*) from app.outbox where state = 'in_doubt'),
    'held', (select count(*) from app.outbox where state = 'held'),
    'chores', (select count(*) from app.outbox where kind <> 'message' and state = 'due'),
    'oldest_due_ms', (
      select coalesce(max(pg_catalog.round(extract(epoch from now() - o.next_attempt_at) * 1000)), 0)
      from app.outbox o
      where o.kind = 'message' and o.state = 'due' and o.lease_token is null),
    'channels_paused', (select count(*) from public.whatsapp_channels where state = 'paused'),
    'billable_messages', (
      select coalesce(sum(greatest(0, u.service_messages - 1000)), 0)
      from public.channel_usage u
      where u.month = pg_catalog.date_trunc('month', now() at time zone 'utc')::date));
$$;
revoke execute on function public.outbox_health from public, anon, authenticated;
grant execute on function public.outbox_health to service_role;

notify pgrst, 'reload schema';
