-- Recording: a batch of webhook bodies in, rows out, in one transaction. What the rows are: docs/decisions/0008.
set lock_timeout = '5s';

drop function public.record_webhooks(jsonb, integer);
drop function app.account_for_bodies(jsonb, public.whatsapp_channels[], uuid[]);
drop function app.insert_messages(app.inbound_item[]);
drop function app.resolve_conversations(app.inbound_item[]);
drop function app.resolve_contacts(app.inbound_item[]);
drop function app.resolve_contact(uuid, text, text, text, uuid, timestamptz);
drop type app.inbound_item;

-- Where the items of a business number, or of an account, go.
create type app.batch_route as (
  number integer, -- place among the batch's numbers; null: by account
  workspace_id uuid,
  channel_id uuid,
  portfolio_id text,
  phone_number_id text,
  waba_id text,
  ai_enabled boolean,
  reopens boolean -- archived conversations, on a new message
);

-- A customer as items of the batch name them; those without a user id once for each time, since it decides.
create type app.batch_person as (
  n integer,
  workspace_id uuid,
  portfolio_id text,
  id uuid, -- the contact's, if it turns out to be new
  user_id text,
  wa_id text,
  parent_user_id text,
  seen_at timestamptz, -- the earliest item
  facts jsonb -- {profile | status_profile: [at, name, username]}
);

create type app.batch_item as (
  n integer,
  kind text, -- message, file, a status, reaction, edit, revoke, call_*; without a wamid: identity, fact
  rank smallint, -- of a status, or of an outbound message: see app.message_states
  workspace_id uuid,
  channel_id uuid,
  portfolio_id text,
  wamid text, -- of the message it is about
  key text, -- what tells it from others of its kind about that message
  person integer,
  thread integer,
  sent_at timestamptz,
  fields jsonb -- what else its kind has
);

-- The rank of a status, as shared/domain/message_status.py has it; null for one that moves nothing.
create function app.status_rank(p_status text)
returns smallint
language sql
immutable
set search_path = ''
as $$
  select case p_status
    when 'queued' then 0 when 'sent' then 1 when 'failed' then 2
    when 'delivered' then 3 when 'read' then 4 when 'played' then 5
  end::smallint;
$$;
revoke execute on function app.status_rank from public;
grant execute on function app.status_rank to service_role;

create function app.status_of_rank(p_rank smallint)
returns text
language sql
immutable
set search_path = ''
as $$
  select (array['queued', 'sent', 'failed', 'delivered', 'read', 'played'])[p_rank + 1];
$$;
revoke execute on function app.status_of_rank from public;
grant execute on function app.status_of_rank to service_role;

-- Why Claude is not to look at a message; null: it is.
create function app.not_analysed_because(
  p_direction text, p_origin text, p_type text, p_content text, p_ai_enabled boolean, p_conversation_status text,
  p_is_suppressed boolean, p_is_revoked boolean
)
returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when p_direction = 'outbound' then 'outbound'
    when p_origin <> 'live' then 'history'
    when p_is_revoked then 'revoked'
    when p_is_suppressed or p_conversation_status = 'blocked' then 'blocked'
    when not p_ai_enabled then 'ai_off'
    when p_type not in ('text', 'button', 'interactive', 'image', 'video', 'document', 'order') then 'unsupported_type'
    when coalesce(p_content, '') = '' then 'empty'
  end;
$$;
revoke execute on function app.not_analysed_because from public;
grant execute on function app.not_analysed_because to service_role;

-- Who had a phone number then: the user id first seen with it last before, else the first of all; '' if none ever was.
create function app.phone_owner(
  p_workspace_id uuid, p_portfolio_id text, p_wa_id text, p_at timestamptz, p_but_for text default null
)
returns text
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select i.user_id
    from public.contact_identities i
    where i.workspace_id = p_workspace_id
      and i.portfolio_id = p_portfolio_id
      and i.kind = 'wa_id'
      and i.value = p_wa_id
      and i.user_id not in ('', coalesce(p_but_for, ''))
    order by i.seen_at <= p_at desc,
             case when i.seen_at <= p_at then i.seen_at end desc,
             case when i.seen_at <= p_at then i.user_id end desc,
             i.seen_at, i.user_id
    limit 1
  ), '');
$$;
revoke execute on function app.phone_owner from public;
grant execute on function app.phone_owner to service_role;

-- The contact behind a sender's ids at a time; null if we know none of them.
create function app.contact_of(
  p_workspace_id uuid, p_portfolio_id text, p_user_id text, p_wa_id text, p_at timestamptz
)
returns uuid
language sql
stable
set search_path = ''
as $$
  select case
    when p_user_id is not null then (
      select i.contact_id
      from public.contact_identities i
      where i.workspace_id = p_workspace_id and i.portfolio_id = p_portfolio_id
        and i.kind = 'bsuid' and i.value = p_user_id and i.user_id = p_user_id)
    else (
      select i.contact_id
      from public.contact_identities i
      where i.workspace_id = p_workspace_id and i.portfolio_id = p_portfolio_id
        and i.kind = 'wa_id' and i.value = p_wa_id
        and i.user_id = app.phone_owner(p_workspace_id, p_portfolio_id, p_wa_id, p_at))
  end;
$$;
revoke execute on function app.contact_of from public;
grant execute on function app.contact_of to service_role;

-- The block during which something was sent; null: none.
create function app.suppressed_since(p_workspace_id uuid, p_contact_id uuid, p_sent_at timestamptz)
returns timestamptz
language sql
stable
set search_path = ''
as $$
  select min(b.blocked_at)
  from app.contact_blocks b
  where b.workspace_id = p_workspace_id
    and b.contact_id = p_contact_id
    and b.blocked_at <= p_sent_at
    and (b.unblocked_at is null or b.unblocked_at > p_sent_at);
$$;
revoke execute on function app.suppressed_since from public;
grant execute on function app.suppressed_since to service_role;

-- People of a batch whose ids, or an earlier sighting of them, are new to us.
create function app.unknown_people(p_people app.batch_person[])
returns app.batch_person[]
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
  select pg_catalog.array_agg(p order by p.workspace_id, p.seen_at, p.n)
  from pg_catalog.unnest(p_people) p
  where (p.user_id is not null and not exists (
      select from public.contact_identities i
      where i.workspace_id = p.workspace_id and i.portfolio_id = p.portfolio_id
        and i.kind = 'bsuid' and i.value = p.user_id and i.user_id = p.user_id and i.seen_at <= p.seen_at))
    or (p.wa_id is not null and not exists (
      select from public.contact_identities i
      where i.workspace_id = p.workspace_id and i.portfolio_id = p.portfolio_id
        and i.kind = 'wa_id' and i.value = p.wa_id and i.user_id = coalesce(p.user_id, '') and i.seen_at <= p.seen_at))
    or (p.parent_user_id is not null and p.user_id is not null and not exists (
      select from public.contact_identities i
      where i.workspace_id = p.workspace_id and i.portfolio_id = p.portfolio_id
        and i.kind = 'parent_bsuid' and i.value = p.parent_user_id and i.user_id = p.user_id and i.seen_at <= p.seen_at))
  );
end;
$$;
revoke execute on function app.unknown_people from public;
grant execute on function app.unknown_people to service_role;

-- Write down who was seen, making contacts for those nobody knows; settle what that changes for others.
-- The caller holds the identities of the workspaces alone.
create function app.learn_people(p_people app.batch_person[])
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_person app.batch_person;
  v_contact_id uuid;
  v_id record;
begin
  foreach v_person in array p_people loop
    -- Which contact, to begin with: the user id's, else that of the phone nobody was seen with. Settling has the last word.
    v_contact_id := coalesce(
      (select i.contact_id
       from public.contact_identities i
       where i.workspace_id = v_person.workspace_id and i.portfolio_id = v_person.portfolio_id
         and i.kind = 'bsuid' and i.value = v_person.user_id and i.user_id = v_person.user_id),
      (select i.contact_id
       from public.contact_identities i
       where i.workspace_id = v_person.workspace_id and i.portfolio_id = v_person.portfolio_id
         and i.kind = 'wa_id' and i.value = v_person.wa_id and i.user_id = ''
         and (v_person.user_id is null or not exists (
           select from public.contact_identities o
           where o.workspace_id = i.workspace_id and o.portfolio_id = i.portfolio_id
             and o.kind = 'wa_id' and o.value = i.value and o.user_id <> ''))
         and (v_person.user_id is null or not exists (
           select from public.contact_identities o
           where o.workspace_id = i.workspace_id and o.contact_id = i.contact_id and o.kind = 'bsuid'))));

    if v_contact_id is null then
      insert into public.contacts (workspace_id, id, first_seen_at)
      values (v_person.workspace_id, v_person.id, v_person.seen_at)
      on conflict do nothing; -- the same person named twice in the batch
      v_contact_id := v_person.id;
    end if;

    for v_id in
      select k.kind, k.value
      from (values ('bsuid', v_person.user_id), ('wa_id', v_person.wa_id), ('parent_bsuid', v_person.parent_user_id)) k(kind, value)
      where k.value is not null
        and (k.kind <> 'parent_bsuid' or v_person.user_id is not null)
    loop
      insert into public.contact_identities as i (workspace_id, portfolio_id, kind, value, user_id, contact_id, seen_at)
      values (v_person.workspace_id, v_person.portfolio_id, v_id.kind, v_id.value, coalesce(v_person.user_id, ''), v_contact_id, v_person.seen_at)
      on conflict (workspace_id, portfolio_id, kind, value, user_id) do update
        set seen_at = excluded.seen_at
        where excluded.seen_at < i.seen_at;
    end loop;

    update public.contacts c
    set first_seen_at = v_person.seen_at
    where c.workspace_id = v_person.workspace_id
      and c.id = v_contact_id
      and c.first_seen_at > v_person.seen_at;
  end loop;

  -- Only where a phone was seen with more than one, or somebody changed ids, can a sighting move anyone.
  for v_id in
    select p.workspace_id, p.portfolio_id,
           pg_catalog.array_agg(distinct p.user_id) filter (where p.user_id is not null) as user_ids,
           pg_catalog.array_agg(distinct p.wa_id) filter (where p.wa_id is not null) as wa_ids
    from pg_catalog.unnest(p_people) p
    where exists (
        select from public.contact_identities i
        where i.workspace_id = p.workspace_id and i.portfolio_id = p.portfolio_id
          and i.kind = 'wa_id' and i.value = p.wa_id and i.user_id <> coalesce(p.user_id, ''))
      or exists (
        select from app.identity_changes c
        where c.workspace_id = p.workspace_id and c.portfolio_id = p.portfolio_id and c.user_id = p.user_id)
      or exists (
        select from app.identity_changes c
        where c.workspace_id = p.workspace_id and c.portfolio_id = p.portfolio_id and c.previous_user_id = p.user_id)
      or exists (
        select from app.identity_changes c
        where c.workspace_id = p.workspace_id and c.portfolio_id = p.portfolio_id and c.wa_id = p.wa_id)
      or exists (
        select from app.identity_changes c
        where c.workspace_id = p.workspace_id and c.portfolio_id = p.portfolio_id and c.previous_wa_id = p.wa_id)
    group by p.workspace_id, p.portfolio_id
    order by p.workspace_id, p.portfolio_id
  loop
    perform app.settle_identities(v_id.workspace_id, v_id.portfolio_id, v_id.user_ids, v_id.wa_ids);
  end loop;
end;
$$;
revoke execute on function app.learn_people from public;
grant execute on function app.learn_people to service_role;

-- Work out anew who is who among all people connected with these ids, and move what turns out to be another's.
-- The caller holds the workspace's identities alone. Rare: its cost is that of the people concerned, with their messages.
create function app.settle_identities(p_workspace_id uuid, p_portfolio_id text, p_user_ids text[], p_wa_ids text[])
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_user_ids text[] := coalesce(p_user_ids, '{}');
  v_wa_ids text[] := coalesce(p_wa_ids, '{}');
  v_before integer;
  v_groups jsonb; -- {user id or '+phone': label}; the label is the smallest name in the group
  v_link record;
  v_label text;
  v_other text;
  v_group record;
  v_contact_id uuid;
  v_touched uuid[] := '{}';
begin
  -- 1. All ids connected with these, by sightings or changes.
  loop
    v_before := pg_catalog.cardinality(v_user_ids) + pg_catalog.cardinality(v_wa_ids);
    select pg_catalog.array_agg(distinct x.user_id) filter (where x.user_id <> ''),
           pg_catalog.array_agg(distinct x.wa_id) filter (where x.wa_id <> '')
    into v_user_ids, v_wa_ids
    from (
      select pg_catalog.unnest(v_user_ids) as user_id, null as wa_id
      union all
      select null, pg_catalog.unnest(v_wa_ids)
      union all
      select i.user_id, i.value
      from public.contact_identities i
      where i.workspace_id = p_workspace_id and i.portfolio_id = p_portfolio_id
        and i.kind = 'wa_id' and (i.value = any (v_wa_ids) or i.user_id <> '' and i.user_id = any (v_user_ids))
      union all
      select pg_catalog.unnest(array[c.user_id, c.previous_user_id]), pg_catalog.unnest(array[c.wa_id, c.previous_wa_id])
      from app.identity_changes c
      where c.workspace_id = p_workspace_id and c.portfolio_id = p_portfolio_id
        and (c.user_id = any (v_user_ids) or c.previous_user_id = any (v_user_ids)
          or c.wa_id = any (v_wa_ids) or c.previous_wa_id = any (v_wa_ids))
    ) x;
    v_user_ids := coalesce(v_user_ids, '{}');
    v_wa_ids := coalesce(v_wa_ids, '{}');
    exit when pg_catalog.cardinality(v_user_ids) + pg_catalog.cardinality(v_wa_ids) = v_before;
  end loop;

  -- 2. Everybody alone, then joined by changes. A phone is somebody only while nobody was seen with it.
  select coalesce(pg_catalog.jsonb_object_agg(n.name, n.name), '{}') into v_groups
  from (
    select i.value as name
    from public.contact_identities i
    where i.workspace_id = p_workspace_id and i.portfolio_id = p_portfolio_id
      and i.kind = 'bsuid' and i.value = any (v_user_ids)
    union all
    select '+' || i.value
    from public.contact_identities i
    where i.workspace_id = p_workspace_id and i.portfolio_id = p_portfolio_id
      and i.kind = 'wa_id' and i.value = any (v_wa_ids) and i.user_id = ''
      and app.phone_owner(p_workspace_id, p_portfolio_id, i.value, i.seen_at) = ''
  ) n;
  for v_link in
    select
      coalesce(c.previous_user_id, nullif(app.phone_owner(p_workspace_id, p_portfolio_id, c.previous_wa_id, c.sent_at, c.user_id), ''),
        '+' || c.previous_wa_id) as a,
      coalesce(c.user_id, nullif(app.phone_owner(p_workspace_id, p_portfolio_id, c.wa_id, c.sent_at), ''), '+' || c.wa_id) as b
    from app.identity_changes c
    where c.workspace_id = p_workspace_id and c.portfolio_id = p_portfolio_id
      and (c.user_id = any (v_user_ids) or c.previous_user_id = any (v_user_ids)
        or c.wa_id = any (v_wa_ids) or c.previous_wa_id = any (v_wa_ids))
    order by c.wamid
  loop
    v_label := least(v_groups ->> v_link.a, v_groups ->> v_link.b);
    v_other := greatest(v_groups ->> v_link.a, v_groups ->> v_link.b);
    if (v_groups ->> v_link.a) <> (v_groups ->> v_link.b) then
      select pg_catalog.jsonb_object_agg(g.key, case g.value when v_other then v_label else g.value end)
      into v_groups
      from pg_catalog.jsonb_each_text(v_groups) g;
    end if;
  end loop;

  -- What was told of each user id, before it is joined with what was told of others.
  update public.contact_identities i
  set facts = c.facts
  from public.contacts c
  where i.workspace_id = p_workspace_id and i.portfolio_id = p_portfolio_id
    and i.kind = 'bsuid' and i.value = any (v_user_ids)
    and i.facts is null
    and c.workspace_id = i.workspace_id and c.id = i.contact_id;

  -- 3. A contact for each group: one it has already, the one first seen; the others go into it. A contact that two
  -- groups have (what joined them turned out to be another) stays with the one seen first.
  for v_group in
    with ids as (
      select i.contact_id, i.seen_at, i.kind, i.value, i.user_id,
             v_groups ->> case
               when i.kind <> 'wa_id' or i.user_id <> '' then i.user_id
               else coalesce(nullif(app.phone_owner(p_workspace_id, p_portfolio_id, i.value, i.seen_at), ''), '+' || i.value)
             end as label
      from public.contact_identities i
      where i.workspace_id = p_workspace_id and i.portfolio_id = p_portfolio_id
        and (i.kind = 'bsuid' and i.value = any (v_user_ids)
          or i.kind = 'wa_id' and i.value = any (v_wa_ids) -- those of the user ids are among them: see 1
          or i.kind = 'parent_bsuid' and i.user_id <> '' and i.user_id = any (v_user_ids))
    ), homes as (
      select distinct on (ids.contact_id) ids.contact_id, ids.label
      from ids
      order by ids.contact_id, ids.kind <> 'bsuid', ids.seen_at, ids.kind, ids.value, ids.user_id -- what was said by a user id stays with it
    )
    select ids.label, min(ids.seen_at) as first_seen_at, t.contact_ids,
           pg_catalog.array_agg(distinct ids.contact_id) as all_contact_ids,
           pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(ids.kind, ids.value, ids.user_id)) as ids
    from ids
    left join (
      select h.label, pg_catalog.array_agg(h.contact_id order by c.first_seen_at, h.contact_id) as contact_ids
      from homes h
      join public.contacts c on c.workspace_id = p_workspace_id and c.id = h.contact_id
      group by h.label
    ) t on t.label = ids.label
    group by ids.label, t.contact_ids
    order by ids.label
  loop
    v_contact_id := v_group.contact_ids[1];
    if v_contact_id is null then
      v_contact_id := pg_catalog.gen_random_uuid();
      insert into public.contacts (workspace_id, id, first_seen_at)
      values (p_workspace_id, v_contact_id, v_group.first_seen_at);
    end if;

    update public.contact_identities i
    set contact_id = v_contact_id
    where i.workspace_id = p_workspace_id
      and i.portfolio_id = p_portfolio_id
      and i.contact_id = any (v_group.all_contact_ids)
      and i.contact_id <> v_contact_id
      and v_group.ids @> pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(i.kind, i.value, i.user_id));

    update public.contacts c
    set first_seen_at = v_group.first_seen_at
    where c.workspace_id = p_workspace_id and c.id = v_contact_id
      and c.first_seen_at <> v_group.first_seen_at;

    if pg_catalog.cardinality(v_group.contact_ids) > 1 then
      perform app.merge_contacts(p_workspace_id, v_contact_id, v_group.contact_ids[2:]);
    end if;
    v_touched := v_touched || v_contact_id || v_group.all_contact_ids;
  end loop;

  -- 4. Facts: those of a contact are those of its user ids, which are kept apart only where there are several.
  update public.contacts c
  set facts = n.facts
  from (
    select o.id, coalesce(app.shown_facts(app.latest_facts(pg_catalog.array_agg(i.facts))), '{}') as facts
    from public.contacts o
    left join public.contact_identities i
      on i.workspace_id = o.workspace_id and i.contact_id = o.id and i.portfolio_id = p_portfolio_id and i.kind = 'bsuid'
    where o.workspace_id = p_workspace_id
      and o.id = any (v_touched)
    group by o.id
  ) n
  where c.workspace_id = p_workspace_id
    and c.id = n.id
    and c.facts <> n.facts;
  update public.contact_identities i
  set facts = null
  where i.workspace_id = p_workspace_id and i.portfolio_id = p_portfolio_id
    and i.kind = 'bsuid' and i.value = any (v_user_ids)
    and not exists (
      select from public.contact_identities o
      where o.workspace_id = i.workspace_id and o.contact_id = i.contact_id and o.kind = 'bsuid' and o.value <> i.value);

  -- What was said of phones alone belongs to whoever had them then; with it goes what is shown of a person.
  update public.contacts c
  set phone_facts = coalesce(n.facts, '{}')
  from pg_catalog.unnest(v_touched) t(id)
  left join (
    select o.contact_id, app.latest_facts(pg_catalog.array_agg(o.facts)) as facts
    from (
      select app.contact_of(p_workspace_id, p_portfolio_id, null, f.wa_id, f.sent_at) as contact_id, f.facts
      from app.phone_facts f
      where f.workspace_id = p_workspace_id
        and f.portfolio_id = p_portfolio_id
        and f.wa_id = any (v_wa_ids)
      offset 0
    ) o
    group by o.contact_id
  ) n on n.contact_id = t.id
  where c.workspace_id = p_workspace_id
    and c.id = t.id;
  perform app.show_person_facts(p_workspace_id, v_touched);

  perform app.rehome_messages(p_workspace_id, p_portfolio_id, v_touched);
end;
$$;
revoke execute on function app.settle_identities from public;
grant execute on function app.settle_identities to service_role;

-- What agents decided about some contacts goes to the one that goes on, and with it their conversations.
create function app.merge_contacts(p_workspace_id uuid, p_contact_id uuid, p_others uuid[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into app.contact_blocks (workspace_id, contact_id, blocked_at, unblocked_at)
  select b.workspace_id, p_contact_id, b.blocked_at, b.unblocked_at
  from app.contact_blocks b
  where b.workspace_id = p_workspace_id
    and b.contact_id = any (p_others)
  on conflict do nothing;

  update public.contacts c
  set blocked_at = (
        select min(b.blocked_at) from app.contact_blocks b
        where b.workspace_id = p_workspace_id and b.contact_id = p_contact_id and b.unblocked_at is null)
  where c.workspace_id = p_workspace_id
    and c.id = p_contact_id;

  update public.contacts
  set merged_into = p_contact_id
  where workspace_id = p_workspace_id
    and id = any (p_others);
  update public.contacts
  set merged_into = p_contact_id
  where workspace_id = p_workspace_id
    and merged_into = any (p_others)
    and id <> p_contact_id;
  update public.contacts
  set merged_into = null
  where workspace_id = p_workspace_id
    and id = p_contact_id
    and merged_into is not null;

  -- A conversation goes along whole where there is none to join; the rest is moved message by message.
  update public.whatsapp_conversations v
  set contact_id = p_contact_id
  where v.workspace_id = p_workspace_id
    and v.id in (
      select distinct on (o.channel_id, o.deleted_at is not null, case when o.deleted_at is not null then o.id end) o.id
      from public.whatsapp_conversations o
      where o.workspace_id = p_workspace_id
        and o.contact_id = any (p_others)
        and (o.deleted_at is not null or not exists (
          select from public.whatsapp_conversations mine
          where mine.workspace_id = p_workspace_id and mine.channel_id = o.channel_id
            and mine.contact_id = p_contact_id and mine.deleted_at is null))
      order by o.channel_id, o.deleted_at is not null, case when o.deleted_at is not null then o.id end, o.id);
end;
$$;
revoke execute on function app.merge_contacts from public;
grant execute on function app.merge_contacts to service_role;

-- Give messages, reactions and calls of these contacts to whom their ids belonged then; move messages into that
-- person's conversation; count the conversations concerned anew.
create function app.rehome_messages(p_workspace_id uuid, p_portfolio_id text, p_contact_ids uuid[])
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_target record;
  v_conversation_ids uuid[];
begin
  perform 1 from public.whatsapp_conversations v
  where v.workspace_id = p_workspace_id and v.contact_id = any (p_contact_ids)
  order by v.id for no key update;

  update public.whatsapp_messages m
  set contact_id = n.contact_id
  from (
    select o.id, case when o.sender_user_id is not null then i.contact_id
                      else app.contact_of(p_workspace_id, p_portfolio_id, null, o.sender_wa_id, o.sent_at) end as contact_id
    from public.whatsapp_messages o
    join public.whatsapp_channels c on c.workspace_id = o.workspace_id and c.id = o.channel_id
    left join public.contact_identities i
      on i.workspace_id = o.workspace_id and i.portfolio_id = c.portfolio_id
     and i.kind = 'bsuid' and i.value = o.sender_user_id and i.user_id = o.sender_user_id
    where o.workspace_id = p_workspace_id
      and o.contact_id = any (p_contact_ids)
      and c.portfolio_id = p_portfolio_id
      and (o.sender_user_id is not null or o.sender_wa_id is not null)
  ) n
  where m.workspace_id = p_workspace_id
    and m.id = n.id
    and m.contact_id <> n.contact_id;

  update public.message_events e
  set contact_id = n.contact_id
  from (
    select o.channel_id, o.wamid, o.kind, o.key,
           app.contact_of(p_workspace_id, p_portfolio_id, o.user_id, o.wa_id, o.sent_at) as contact_id
    from public.message_events o
    join public.whatsapp_channels c on c.workspace_id = o.workspace_id and c.id = o.channel_id
    where o.workspace_id = p_workspace_id
      and o.contact_id = any (p_contact_ids)
      and c.portfolio_id = p_portfolio_id
  ) n
  where e.workspace_id = p_workspace_id
    and e.channel_id = n.channel_id and e.wamid = n.wamid and e.kind = n.kind and e.key = n.key
    and e.contact_id <> n.contact_id;

  -- Messages that are not where their contact's are: by channel and contact.
  for v_target in
    select m.channel_id, m.contact_id,
           pg_catalog.array_agg(m.id) as message_ids,
           pg_catalog.array_agg(distinct v.id) as from_ids,
           pg_catalog.bool_or(v.status = 'blocked') as was_blocked,
           pg_catalog.bool_or(v.status = 'open') as was_open,
           max(v.archived_at) as archived_at,
           (select t.id from public.whatsapp_conversations t
            where t.workspace_id = p_workspace_id and t.channel_id = m.channel_id
              and t.contact_id = m.contact_id and t.deleted_at is null) as to_id
    from public.whatsapp_conversations v
    join public.whatsapp_messages m on m.workspace_id = v.workspace_id and m.conversation_id = v.id
    where v.workspace_id = p_workspace_id
      and v.contact_id = any (p_contact_ids)
      and v.deleted_at is null
      and m.contact_id <> v.contact_id
    group by m.channel_id, m.contact_id
    order by m.channel_id, m.contact_id
  loop
    if v_target.to_id is null then
      v_target.to_id := pg_catalog.gen_random_uuid();
      insert into public.whatsapp_conversations (workspace_id, id, channel_id, contact_id, status, archived_at, last_message_at)
      values (p_workspace_id, v_target.to_id, v_target.channel_id, v_target.contact_id,
              case when v_target.was_open or v_target.was_blocked then 'open' else 'archived' end,
              case when not (v_target.was_open or v_target.was_blocked) then v_target.archived_at end, '-infinity');
    else
      update public.whatsapp_conversations t
      set status = case when v_target.was_blocked or t.status = 'blocked' then 'blocked'
                        when v_target.was_open or t.status = 'open' then 'open'
                        else 'archived' end,
          archived_at = case when t.status = 'archived' and not (v_target.was_blocked or v_target.was_open)
                          then greatest(t.archived_at, v_target.archived_at) end
      where t.workspace_id = p_workspace_id and t.id = v_target.to_id;
    end if;

    -- Numbered anew, read ones first, so that read stays read; above all numbers given before, so that none meet.
    with all_messages as (
      select m.id, m.seq <= v.read_seq as is_read, m.sent_at, m.wamid
      from public.whatsapp_messages m
      join public.whatsapp_conversations v on v.workspace_id = m.workspace_id and v.id = m.conversation_id
      where m.workspace_id = p_workspace_id
        and (m.conversation_id = v_target.to_id or m.id = any (v_target.message_ids))
    ), numbered as (
      select a.id, a.is_read, t.next_seq - 1 + pg_catalog.row_number() over (order by not a.is_read, a.sent_at, a.wamid) as seq
      from all_messages a
      cross join (
        select c.next_seq from public.whatsapp_conversations c
        where c.workspace_id = p_workspace_id and c.id = v_target.to_id) t
    ), moved as (
      update public.whatsapp_messages m
      set conversation_id = v_target.to_id, seq = n.seq
      from numbered n
      where m.workspace_id = p_workspace_id and m.id = n.id
    )
    update public.whatsapp_conversations t
    set read_seq = t.next_seq - 1 + (select count(*) from numbered where is_read),
        first_seq = t.next_seq,
        next_seq = t.next_seq + (select count(*) from numbered)
    where t.workspace_id = p_workspace_id and t.id = v_target.to_id;
  end loop;

  -- Conversations that ended up empty are gone, into where their contact's are.
  update public.whatsapp_conversations v
  set status = 'deleted', deleted_at = now(), unread_count = 0,
      merged_into = (
        select t.id from public.whatsapp_conversations t
        join public.contacts k on k.workspace_id = t.workspace_id and k.id = t.contact_id
        where t.workspace_id = p_workspace_id and t.channel_id = v.channel_id and t.deleted_at is null and t.id <> v.id
          and t.contact_id = (select coalesce(o.merged_into, o.id) from public.contacts o
                              where o.workspace_id = p_workspace_id and o.id = v.contact_id))
  where v.workspace_id = p_workspace_id
    and v.contact_id = any (p_contact_ids)
    and v.deleted_at is null
    and not exists (
      select from public.whatsapp_messages m where m.workspace_id = p_workspace_id and m.conversation_id = v.id);

  select pg_catalog.array_agg(v.id order by v.id) into v_conversation_ids
  from public.whatsapp_conversations v
  where v.workspace_id = p_workspace_id
    and v.contact_id = any (p_contact_ids)
    and v.deleted_at is null;
  perform app.recount_conversations(p_workspace_id, v_conversation_ids);
  perform app.rethink_waiting(p_workspace_id, v_conversation_ids);

  update public.contacts c
  set merged_into = null
  where c.workspace_id = p_workspace_id and c.id = any (p_contact_ids) and c.merged_into is not null
    and exists (select from public.contact_identities i where i.workspace_id = p_workspace_id and i.contact_id = c.id);
end;
$$;
revoke execute on function app.rehome_messages from public;
grant execute on function app.rehome_messages to service_role;

-- Work out anew, from messages, events and blocks, what a conversation says of them.
create function app.recount_conversations(p_workspace_id uuid, p_conversation_ids uuid[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  update public.whatsapp_messages m
  set suppressed_at = n.since
  from (
    select o.id, min(b.blocked_at) as since
    from public.whatsapp_messages o
    left join app.contact_blocks b
      on b.workspace_id = o.workspace_id and b.contact_id = o.contact_id
     and b.blocked_at <= o.sent_at and (b.unblocked_at is null or b.unblocked_at > o.sent_at)
    where o.workspace_id = p_workspace_id
      and o.conversation_id = any (p_conversation_ids)
      and o.direction = 'inbound'
      and o.origin = 'live'
      and (b.contact_id is not null or o.suppressed_at is not null)
    group by o.id
  ) n
  where m.workspace_id = p_workspace_id
    and m.id = n.id
    and m.suppressed_at is distinct from n.since;

  update public.whatsapp_conversations v
  set status = case when k.blocked_at is not null then 'blocked' when v.status = 'blocked' then 'open' else v.status end,
      blocked_at = k.blocked_at,
      last_message_at = coalesce(m.last_message_at, b.first_blocked_at, v.last_message_at),
      last_inbound_at = greatest(m.last_inbound_at, e.last_at),
      window_expires_at = greatest(m.last_inbound_at, e.last_at) + interval '24 hours',
      unread_count = coalesce(m.unread, 0),
      phone_number = m.phone_number
  from public.whatsapp_conversations o
  join public.contacts k on k.workspace_id = o.workspace_id and k.id = o.contact_id
  left join lateral (
    select max(x.sent_at) filter (where x.suppressed_at is null) as last_message_at,
           max(x.sent_at) filter (where x.suppressed_at is null and x.direction = 'inbound' and x.origin = 'live') as last_inbound_at,
           count(*) filter (where x.direction = 'inbound' and x.origin = 'live' and x.suppressed_at is null
                              and x.revoked_at is null and x.seq > o.read_seq) as unread,
           (pg_catalog.array_agg(x.sender_wa_id order by x.sent_at desc, x.wamid desc)
             filter (where x.sender_wa_id is not null and x.suppressed_at is null))[1] as phone_number
    from public.whatsapp_messages x
    where x.workspace_id = o.workspace_id and x.conversation_id = o.id
  ) m on true
  left join lateral (
    select max(x.sent_at) as last_at
    from public.message_events x
    where x.workspace_id = o.workspace_id and x.contact_id = o.contact_id and x.channel_id = o.channel_id and x.by_customer
      and app.suppressed_since(x.workspace_id, x.contact_id, x.sent_at) is null
  ) e on true
  left join lateral (
    select min(x.blocked_at) as first_blocked_at
    from app.contact_blocks x
    where x.workspace_id = o.workspace_id and x.contact_id = o.contact_id
  ) b on true
  where o.workspace_id = p_workspace_id
    and o.id = any (p_conversation_ids)
    and v.workspace_id = o.workspace_id
    and v.id = o.id;
end;
$$;
revoke execute on function app.recount_conversations from public;
grant execute on function app.recount_conversations to service_role;

-- After messages went from one person to another: what waits for Claude no longer does if it is blocked now, and the
-- other way round. (Not whenever a conversation is counted: that depends on the order of what is recorded.)
create function app.rethink_waiting(p_workspace_id uuid, p_conversation_ids uuid[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  update public.whatsapp_messages m
  set ai_state = case when n.reason is null then 'pending' else 'skipped' end,
      ai_reason = n.reason
  from (
    select x.id, app.not_analysed_because(x.direction, x.origin, x.message_type, x.content,
             w.settings -> 'ai_enabled' is distinct from 'false', v.status, x.suppressed_at is not null, x.revoked_at is not null) as reason
    from public.whatsapp_conversations v
    join public.workspaces w on w.id = v.workspace_id
    join public.whatsapp_messages x on x.workspace_id = v.workspace_id and x.conversation_id = v.id
    where v.workspace_id = p_workspace_id
      and v.id = any (p_conversation_ids)
      and x.direction = 'inbound'
      and x.origin = 'live'
      and (x.ai_state = 'pending' or x.ai_state = 'skipped' and x.ai_reason = 'blocked')
  ) n
  where m.workspace_id = p_workspace_id
    and m.id = n.id
    and m.ai_reason is distinct from n.reason;

  insert into app.conversation_work (workspace_id, conversation_id, due_at)
  select distinct m.workspace_id, m.conversation_id, now()
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.conversation_id = any (p_conversation_ids)
    and m.ai_state = 'pending'
  order by 1, 2
  on conflict do nothing;
end;
$$;
revoke execute on function app.rethink_waiting from public;
grant execute on function app.rethink_waiting to service_role;

-- What of a person's facts is kept: what statuses say of a name only while the person has not shown one.
create function app.shown_facts(p_facts jsonb)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when p_facts ? 'profile' then p_facts - 'status_profile' else p_facts end;
$$;
revoke execute on function app.shown_facts from public;
grant execute on function app.shown_facts to service_role;

create function app.name_in_facts(p_facts jsonb)
returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(
    nullif(p_facts #>> '{profile,1}', ''), nullif(p_facts #>> '{status_profile,1}', ''), nullif(p_facts #>> '{address_book,1}', ''));
$$;
revoke execute on function app.name_in_facts from public;
grant execute on function app.name_in_facts to service_role;

create function app.username_in_facts(p_facts jsonb)
returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(nullif(p_facts #>> '{profile,2}', ''), nullif(p_facts #>> '{status_profile,2}', ''));
$$;
revoke execute on function app.username_in_facts from public;
grant execute on function app.username_in_facts to service_role;

create function app.opted_out_in_facts(p_facts jsonb)
returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select case when p_facts #>> '{marketing,1}' = 'stop'
    then pg_catalog.to_timestamp((p_facts #>> '{marketing,0}')::numeric / 1000) end;
$$;
revoke execute on function app.opted_out_in_facts from public;
grant execute on function app.opted_out_in_facts to service_role;

-- Let the columns of contacts follow from their facts.
create function app.show_person_facts(p_workspace_id uuid, p_contact_ids uuid[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  update public.contacts c
  set name = app.name_in_facts(f.facts),
      username = app.username_in_facts(f.facts),
      opted_out_at = app.opted_out_in_facts(f.facts)
  from public.contacts o
  cross join lateral (select app.shown_facts(app.later_facts(o.facts, o.phone_facts)) as facts) f
  where o.workspace_id = p_workspace_id
    and o.id = any (p_contact_ids)
    and c.workspace_id = o.workspace_id
    and c.id = o.id;
end;
$$;
revoke execute on function app.show_person_facts from public;
grant execute on function app.show_person_facts to service_role;

-- Keep the latest of each fact the batch brings about people. p_contacts: by place in p_people, from 1.
-- p_sharing: people whose user id shares its contact with another.
-- Returns the items that were new, as opposed to known or overtaken.
create function app.keep_person_facts(
  p_people app.batch_person[], p_contacts uuid[], p_sharing integer[], p_items app.batch_item[]
)
returns integer[]
language plpgsql
set search_path = ''
as $$
declare
  v_contact record;
  v_person app.batch_person;
  v_facts jsonb;
  v_item app.batch_item;
  v_mixed uuid[]; -- contacts of whom more than one set-wise update knows
  v_new integer[] := '{}';
begin
  -- All that may change, in key order, before anything does.
  perform 1
  from (
    select distinct p.workspace_id, p_contacts[p.n + 1] as id
    from pg_catalog.unnest(p_people) p
    where p.facts is not null
       or p.n in (select i.person from pg_catalog.unnest(p_items) i where i.kind = 'fact')
    order by 1, 2
    offset 0
  ) t
  cross join lateral (
    select from public.contacts c where c.workspace_id = t.workspace_id and c.id = t.id for no key update
  ) locked;

  -- Profiles, which every message brings: one set-wise update.
  with latest as (
    select p.workspace_id, p_contacts[p.n + 1] as contact_id,
           (pg_catalog.array_agg(p.facts -> 'profile' order by (p.facts #>> '{profile,0}')::bigint desc nulls last,
             ((p.facts -> 'profile') - 0)::text collate "C" desc))[1] as profile,
           (pg_catalog.array_agg(p.facts -> 'status_profile' order by (p.facts #>> '{status_profile,0}')::bigint desc nulls last,
             ((p.facts -> 'status_profile') - 0)::text collate "C" desc))[1] as status_profile
    from pg_catalog.unnest(p_people) p
    where p.facts is not null
      and p.user_id is not null
      and p_contacts[p.n + 1] is not null
    group by p.workspace_id, p_contacts[p.n + 1]
  ), compared as (
    select l.*, c.facts,
           coalesce(((l.profile ->> 0)::bigint, (l.profile - 0)::text collate "C")
             > ((c.facts #>> '{profile,0}')::bigint, ((c.facts -> 'profile') - 0)::text collate "C"), l.profile is not null) as is_newer,
           coalesce(((l.status_profile ->> 0)::bigint, (l.status_profile - 0)::text collate "C")
             > ((c.facts #>> '{status_profile,0}')::bigint, ((c.facts -> 'status_profile') - 0)::text collate "C"),
             l.status_profile is not null) and l.profile is null and not c.facts ? 'profile' as is_newer_status
    from latest l
    join public.contacts c on c.workspace_id = l.workspace_id and c.id = l.contact_id
  ), newer as (
    select d.workspace_id, d.contact_id as id,
           case when d.is_newer then (d.facts - 'status_profile') || pg_catalog.jsonb_build_object('profile', d.profile)
                else d.facts || pg_catalog.jsonb_build_object('status_profile', d.status_profile) end as facts
    from compared d
    where d.is_newer
       or d.is_newer_status
  )
  update public.contacts c
  set facts = n.facts, -- as app.name_in_facts and app.username_in_facts have it, without a call a row
      name = coalesce(nullif(n.facts #>> '{profile,1}', ''), nullif(n.facts #>> '{status_profile,1}', ''), nullif(n.facts #>> '{address_book,1}', '')),
      username = coalesce(nullif(n.facts #>> '{profile,2}', ''), nullif(n.facts #>> '{status_profile,2}', ''))
  from newer n
  where c.workspace_id = n.workspace_id
    and c.id = n.id;
  v_mixed := array(
    select c.id
    from pg_catalog.unnest(p_people) p
    cross join lateral (
      select x.id, x.phone_facts from public.contacts x
      where x.workspace_id = p.workspace_id and x.id = p_contacts[p.n + 1]
      offset 0
    ) c
    where p.facts is not null
      and c.phone_facts <> '{}');

  -- Those named by phone alone: kept by themselves, since they may turn out to be somebody else's.
  for v_person in
    select p.* from pg_catalog.unnest(p_people) p
    where p.user_id is null
      and p_contacts[p.n + 1] is not null
      and (p.facts is not null or exists (
        select from pg_catalog.unnest(p_items) i where i.kind = 'fact' and i.person = p.n))
    order by p.workspace_id, p.portfolio_id, p.wa_id, p.seen_at
  loop
    v_facts := app.later_facts((
      select f.facts
      from app.phone_facts f
      where f.workspace_id = v_person.workspace_id and f.portfolio_id = v_person.portfolio_id
        and f.wa_id = v_person.wa_id and f.sent_at = v_person.seen_at), v_person.facts);
    for v_item in
      select i.* from pg_catalog.unnest(p_items) i where i.kind = 'fact' and i.person = v_person.n order by i.n
    loop
      if v_facts is distinct from app.later_facts(v_facts, v_item.fields) then
        v_facts := app.later_facts(v_facts, v_item.fields);
        v_new := v_new || v_item.n;
      end if;
    end loop;
    insert into app.phone_facts as f (workspace_id, portfolio_id, wa_id, sent_at, facts)
    values (v_person.workspace_id, v_person.portfolio_id, v_person.wa_id, v_person.seen_at, v_facts)
    on conflict (workspace_id, portfolio_id, wa_id, sent_at) do update
      set facts = app.later_facts(f.facts, excluded.facts);
    update public.contacts c
    set phone_facts = app.later_facts(c.phone_facts, v_facts)
    where c.workspace_id = v_person.workspace_id
      and c.id = p_contacts[v_person.n + 1];
    v_mixed := v_mixed || p_contacts[v_person.n + 1];
  end loop;

  for v_item in
    select i.* from pg_catalog.unnest(p_items) i
    join pg_catalog.unnest(p_people) p on p.n = i.person and p.user_id is not null
    where i.kind = 'fact'
    order by i.workspace_id, p_contacts[i.person + 1], i.n
  loop
    select c.facts into v_facts
    from public.contacts c
    where c.workspace_id = v_item.workspace_id
      and c.id = p_contacts[v_item.person + 1]
    for no key update;
    if v_facts is distinct from app.later_facts(v_facts, v_item.fields) then
      update public.contacts c
      set facts = app.later_facts(v_facts, v_item.fields)
      where c.workspace_id = v_item.workspace_id
        and c.id = p_contacts[v_item.person + 1];
      v_mixed := v_mixed || p_contacts[v_item.person + 1];
      v_new := v_new || v_item.n;
    end if;
  end loop;

  -- The same for user ids that share a contact.
  for v_person in
    select p.* from pg_catalog.unnest(p_people) p where p.n = any (p_sharing) order by p.workspace_id, p.portfolio_id, p.user_id, p.n
  loop
    v_facts := coalesce(v_person.facts, '{}');
    for v_item in
      select i.* from pg_catalog.unnest(p_items) i where i.kind = 'fact' and i.person = v_person.n order by i.n
    loop
      v_facts := app.later_facts(v_facts, v_item.fields);
    end loop;
    update public.contact_identities i
    set facts = app.shown_facts(app.later_facts(i.facts, v_facts))
    where i.workspace_id = v_person.workspace_id and i.portfolio_id = v_person.portfolio_id
      and i.kind = 'bsuid' and i.value = v_person.user_id and i.user_id = v_person.user_id;
  end loop;

  if pg_catalog.cardinality(v_mixed) > 0 then
    for v_contact in select distinct p.workspace_id from pg_catalog.unnest(p_people) p loop
      perform app.show_person_facts(v_contact.workspace_id, v_mixed);
    end loop;
  end if;
  return v_new;
end;
$$;
revoke execute on function app.keep_person_facts from public;
grant execute on function app.keep_person_facts to service_role;

-- Write down changes of ids and settle what they mean. The caller holds the identities alone.
-- Returns the items that were new.
create function app.keep_identity_changes(p_items app.batch_item[])
returns integer[]
language plpgsql
set search_path = ''
as $$
declare
  v_item app.batch_item;
  v_new integer[] := '{}';
begin
  for v_item in
    select i.* from pg_catalog.unnest(p_items) i where i.kind = 'identity' order by i.workspace_id, i.portfolio_id, i.key, i.n
  loop
    insert into app.identity_changes (
      workspace_id, portfolio_id, wamid, previous_user_id, previous_wa_id, user_id, wa_id, sent_at)
    values (v_item.workspace_id, v_item.portfolio_id, v_item.key, v_item.fields ->> 'previous_user_id',
            v_item.fields ->> 'previous_wa_id', v_item.fields ->> 'user_id', v_item.fields ->> 'wa_id', v_item.sent_at)
    on conflict do nothing;
    if found then
      v_new := v_new || v_item.n;
      perform app.settle_identities(
        v_item.workspace_id, v_item.portfolio_id,
        pg_catalog.array_remove(array[v_item.fields ->> 'previous_user_id', v_item.fields ->> 'user_id'], null),
        pg_catalog.array_remove(array[v_item.fields ->> 'previous_wa_id', v_item.fields ->> 'wa_id'], null));
    end if;
  end loop;
  return v_new;
end;
$$;
revoke execute on function app.keep_identity_changes from public;
grant execute on function app.keep_identity_changes to service_role;

-- The live conversation of each thread by its place, from 1; null: none. p_threads: [{n, number, person, group_id, id}].
create function app.find_conversations(p_threads jsonb, p_routes app.batch_route[], p_contacts uuid[])
returns uuid[]
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select pg_catalog.array_agg(coalesce(
      (select v.id from public.whatsapp_conversations v
       where v.workspace_id = r.workspace_id and v.channel_id = r.channel_id and v.deleted_at is null
         and v.contact_id = p_contacts[t.person + 1] and t.group_id is null),
      case when t.group_id is not null then (
        select v.id from public.whatsapp_conversations v
        where v.workspace_id = r.workspace_id and v.channel_id = r.channel_id and v.deleted_at is null
          and v.group_id = t.group_id) end) order by t.n)
    from pg_catalog.jsonb_to_recordset(p_threads) as t(n integer, number integer, person integer, group_id text)
    left join pg_catalog.unnest(p_routes) r on r.number = t.number);
end;
$$;
revoke execute on function app.find_conversations from public;
grant execute on function app.find_conversations to service_role;

-- Open the conversations that messages need, and lock all the batch may change, in key order.
-- p_opening: threads with a message we do not have. Returns what find_conversations does.
create function app.open_conversations(
  p_threads jsonb, p_routes app.batch_route[], p_contacts uuid[], p_opening integer[], p_items app.batch_item[]
)
returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  v_conversations uuid[] := app.find_conversations(p_threads, p_routes, p_contacts);
  v_missing integer[];
begin
  select pg_catalog.array_agg(n) into v_missing
  from pg_catalog.unnest(p_opening) n
  where v_conversations[n + 1] is null;

  if v_missing is not null then
    insert into public.whatsapp_conversations (
      workspace_id, id, channel_id, contact_id, group_id, status, blocked_at, last_message_at, last_inbound_at, window_expires_at)
    select distinct on (r.workspace_id, r.channel_id, t.group_id, c.contact_id)
      r.workspace_id, t.id, r.channel_id, c.contact_id, t.group_id,
      case when k.blocked_at is not null then 'blocked' else 'open' end, k.blocked_at,
      coalesce(b.first_blocked_at, '-infinity'), e.last_at, e.last_at + interval '24 hours'
    from pg_catalog.jsonb_to_recordset(p_threads) as t(n integer, number integer, person integer, group_id text, id uuid)
    join pg_catalog.unnest(p_routes) r on r.number = t.number
    cross join lateral (select case when t.group_id is null then p_contacts[t.person + 1] end as contact_id) c
    left join public.contacts k on k.workspace_id = r.workspace_id and k.id = c.contact_id
    left join lateral (
      -- What they did before they wrote.
      select max(x.sent_at) as last_at
      from public.message_events x
      where x.workspace_id = r.workspace_id and x.contact_id = c.contact_id and x.channel_id = r.channel_id and x.by_customer
        and app.suppressed_since(x.workspace_id, x.contact_id, x.sent_at) is null
    ) e on true
    left join lateral (
      select min(x.blocked_at) as first_blocked_at
      from app.contact_blocks x
      where x.workspace_id = r.workspace_id and x.contact_id = c.contact_id
    ) b on true
    where t.n = any (v_missing)
      and (t.group_id is not null or c.contact_id is not null)
    order by r.workspace_id, r.channel_id, t.group_id, c.contact_id, t.n
    on conflict do nothing; -- another recorder was first
    v_conversations := app.find_conversations(p_threads, p_routes, p_contacts);
  end if;

  perform 1
  from (
    select r.workspace_id, v_conversations[t.n + 1] as id
    from pg_catalog.jsonb_to_recordset(p_threads) as t(n integer, number integer)
    join pg_catalog.unnest(p_routes) r on r.number = t.number
    union -- a message of a group is edited or revoked by somebody whose own thread is another
    select m.workspace_id, m.conversation_id
    from pg_catalog.unnest(p_items) i
    join public.whatsapp_messages m on m.workspace_id = i.workspace_id and m.channel_id = i.channel_id and m.wamid = i.wamid
    where i.kind in ('message', 'edit', 'revoke')
    order by 1, 2
    offset 0
  ) t
  cross join lateral (
    select from public.whatsapp_conversations v
    where v.workspace_id = t.workspace_id
      and v.id = t.id
    for no key update
  ) locked;

  return coalesce(v_conversations, '{}');
end;
$$;
revoke execute on function app.open_conversations from public;
grant execute on function app.open_conversations to service_role;

-- Fold what the batch tells of each message into its state; leaves those rows locked, in key order.
create function app.fold_states(p_items app.batch_item[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into app.message_states as s (
    workspace_id, channel_id, wamid, rank, sent_at, delivered_at, read_at, played_at, failed_at, error, revoked_at, edited_at, edit)
  select
    i.workspace_id, i.channel_id, i.wamid,
    coalesce(max(i.rank), -1),
    min(i.sent_at) filter (where i.kind = 'sent'),
    min(i.sent_at) filter (where i.kind = 'delivered'),
    min(i.sent_at) filter (where i.kind = 'read'),
    min(i.sent_at) filter (where i.kind = 'played'),
    min(i.sent_at) filter (where i.kind = 'failed'),
    (pg_catalog.array_agg(i.fields -> 'error' order by i.sent_at, i.fields -> 'error') filter (where i.kind = 'failed'))[1],
    min(i.sent_at) filter (where i.kind = 'revoke'),
    max(i.sent_at) filter (where i.kind = 'edit'),
    (pg_catalog.array_agg(i.fields -> 'edit' order by i.sent_at desc, i.fields -> 'edit' desc) filter (where i.kind = 'edit'))[1]
  from pg_catalog.unnest(p_items) i
  where i.wamid is not null
  group by i.workspace_id, i.channel_id, i.wamid
  order by i.workspace_id, i.channel_id, i.wamid
  on conflict (workspace_id, channel_id, wamid) do update
  set rank = greatest(s.rank, excluded.rank),
      sent_at = least(s.sent_at, excluded.sent_at),
      delivered_at = least(s.delivered_at, excluded.delivered_at),
      read_at = least(s.read_at, excluded.read_at),
      played_at = least(s.played_at, excluded.played_at),
      failed_at = least(s.failed_at, excluded.failed_at),
      error = case
        when excluded.failed_at is null then s.error
        when s.failed_at is null or (excluded.failed_at, excluded.error) < (s.failed_at, s.error) then excluded.error
        else s.error
      end,
      revoked_at = least(s.revoked_at, excluded.revoked_at),
      edited_at = greatest(s.edited_at, excluded.edited_at),
      edit = case
        when excluded.edited_at is null then s.edit
        when s.edited_at is null or (excluded.edited_at, excluded.edit) > (s.edited_at, s.edit) then excluded.edit
        else s.edit
      end
  -- What changes nothing is locked all the same, which is the point.
  where (greatest(s.rank, excluded.rank), least(s.sent_at, excluded.sent_at), least(s.delivered_at, excluded.delivered_at),
         least(s.read_at, excluded.read_at), least(s.played_at, excluded.played_at), least(s.failed_at, excluded.failed_at),
         least(s.revoked_at, excluded.revoked_at))
        is distinct from (s.rank, s.sent_at, s.delivered_at, s.read_at, s.played_at, s.failed_at, s.revoked_at)
     or excluded.edited_at is not null
     or excluded.failed_at is not null;
end;
$$;
revoke execute on function app.fold_states from public;
grant execute on function app.fold_states to service_role;

-- Write down events we do not have; the states of their messages are locked, so nobody else is at the same.
-- Returns the items that were new.
create function app.keep_events(p_items app.batch_item[], p_contacts uuid[])
returns integer[]
language plpgsql
set search_path = ''
as $$
declare
  v_fresh app.batch_item[];
  v_earlier app.batch_item[]; -- repetitions that name an earlier time, or say more: not new, but the earliest is kept
  v_new integer[];
begin
  select pg_catalog.array_agg(d.i) filter (where e.sent_at is null),
         pg_catalog.array_agg(d.i) filter (where ((d.i).sent_at, coalesce((d.i).fields -> 'payload', 'null'))
           < (e.sent_at, coalesce(e.payload, 'null')))
  into v_fresh, v_earlier
  from (
    select distinct on (x.workspace_id, x.channel_id, x.wamid, x.kind, x.key) x as i
    from pg_catalog.unnest(p_items) x
    where x.wamid is not null
      and x.kind not in ('message', 'file')
    order by x.workspace_id, x.channel_id, x.wamid, x.kind, x.key, x.sent_at, coalesce(x.fields -> 'payload', 'null')
  ) d
  left join lateral (
    select e.sent_at, e.payload
    from public.message_events e
    where e.workspace_id = (d.i).workspace_id and e.channel_id = (d.i).channel_id
      and e.wamid = (d.i).wamid and e.kind = (d.i).kind and e.key = (d.i).key
    limit 1
  ) e on true;

  if v_earlier is not null then
    update public.message_events e
    set sent_at = i.sent_at, payload = i.fields -> 'payload'
    from pg_catalog.unnest(v_earlier) i
    where e.workspace_id = i.workspace_id and e.channel_id = i.channel_id
      and e.wamid = i.wamid and e.kind = i.kind and e.key = i.key;
  end if;

  insert into public.message_events (
    workspace_id, channel_id, wamid, kind, key, contact_id, wa_id, user_id, by_customer, sent_at, payload)
  select f.workspace_id, f.channel_id, f.wamid, f.kind, f.key,
         case when f.fields ? 'by_customer' then p_contacts[f.person + 1] end,
         f.fields ->> 'wa_id', f.fields ->> 'user_id', coalesce((f.fields -> 'by_customer')::boolean, false),
         f.sent_at, f.fields -> 'payload'
  from pg_catalog.unnest(v_fresh) f;
  select coalesce(pg_catalog.array_agg(f.n), '{}') into v_new from pg_catalog.unnest(v_fresh) f;

  if exists (select from pg_catalog.unnest(p_items) i where i.kind = 'edit') then
    update app.message_states s
    set edits = s.edits + e.added
    from (
      select i.workspace_id, i.channel_id, i.wamid, count(*) as added
      from pg_catalog.unnest(p_items) i
      where i.kind = 'edit'
        and i.n = any (v_new)
      group by i.workspace_id, i.channel_id, i.wamid
    ) e
    where s.workspace_id = e.workspace_id and s.channel_id = e.channel_id and s.wamid = e.wamid;
  end if;
  return v_new;
end;
$$;
revoke execute on function app.keep_events from public;
grant execute on function app.keep_events to service_role;

-- History sends the files of media_placeholders later, and of our own messages without saying to whom they went: keep
-- each by its message, and put it in place once the message is there. States are locked.
-- Returns the items that were new.
create function app.keep_files(p_items app.batch_item[])
returns integer[]
language plpgsql
set search_path = ''
as $$
declare
  v_item app.batch_item;
  v_message record;
  v_new integer[] := '{}';
begin
  for v_item in
    select i.* from pg_catalog.unnest(p_items) i
    where i.kind = 'file'
    order by i.workspace_id, i.channel_id, i.wamid, i.n
  loop
    if exists (
      select from app.message_states s
      where s.workspace_id = v_item.workspace_id and s.channel_id = v_item.channel_id and s.wamid = v_item.wamid
        and s.file is null)
    then
      v_new := v_new || v_item.n;
    end if;
    update app.message_states s
    set file = v_item.fields - 'id'
    where s.workspace_id = v_item.workspace_id and s.channel_id = v_item.channel_id and s.wamid = v_item.wamid
      and (s.file is null or v_item.fields - 'id' > s.file);
  end loop;

  for v_message in
    select m.workspace_id, m.id, s.file, s.edited_at, s.edit, s.revoked_at
    from (
      select distinct i.workspace_id, i.channel_id, i.wamid
      from pg_catalog.unnest(p_items) i
      where i.kind = 'file'
         or i.kind = 'message' and i.fields ->> 'message_type' = 'media_placeholder'
    ) t
    cross join lateral (
      select x.* from app.message_states x
      where x.workspace_id = t.workspace_id and x.channel_id = t.channel_id and x.wamid = t.wamid
      offset 0
    ) s
    cross join lateral (
      select x.* from public.whatsapp_messages x
      where x.workspace_id = t.workspace_id and x.channel_id = t.channel_id and x.wamid = t.wamid
      offset 0
    ) m
    where s.file is not null
      and m.message_type = 'media_placeholder'
    order by m.workspace_id, m.id
  loop
    update public.whatsapp_messages m
    set message_type = v_message.file ->> 'message_type',
        content = case when v_message.revoked_at is not null then null
                       when v_message.edited_at is not null then v_message.edit ->> 'content'
                       else v_message.file ->> 'content' end,
        payload = case when v_message.revoked_at is not null then '{}'
                       else coalesce(v_message.edit -> 'payload', v_message.file -> 'payload') end
    where m.workspace_id = v_message.workspace_id
      and m.id = v_message.id;
    perform app.keep_media(array[row(null, null, null, v_message.workspace_id, null, null, null, null, null, null, null,
      v_message.file || pg_catalog.jsonb_build_object('id', v_message.id))::app.batch_item], array[v_message.id]);
  end loop;
  return v_new;
end;
$$;
revoke execute on function app.keep_files from public;
grant execute on function app.keep_files to service_role;

create type app.batch_outcome as (
  stored integer[], -- items
  suppressed integer[],
  message_ids uuid[] -- rows that are new, or newly live
);

-- Insert the messages we do not have, and what a better copy says of those we have; move their conversations on.
-- Conversations and states are locked.
create function app.keep_messages(
  p_items app.batch_item[], p_routes app.batch_route[], p_contacts uuid[], p_conversations uuid[]
)
returns app.batch_outcome
language plpgsql
set search_path = ''
as $$
declare
  v_fresh app.batch_item[];
  v_raised app.batch_item[];
  v_outcome app.batch_outcome;
  v_stored integer[];
  v_suppressed integer[];
  v_message_ids uuid[];
  v_unsure jsonb;
  v_workspace_id uuid;
  v_conversation_ids uuid[];
begin
  -- Of several copies in the batch the one of the highest origin counts, and of those the first.
  select pg_catalog.array_agg(best.i) filter (where m.id is null),
         pg_catalog.array_agg(best.i) filter (where m.id is not null)
  into v_fresh, v_raised
  from (
    select distinct on (x.workspace_id, x.channel_id, x.wamid) x as i
    from pg_catalog.unnest(p_items) x
    where x.kind = 'message'
    order by x.workspace_id, x.channel_id, x.wamid, x.fields ->> 'origin' = 'history',
             x.fields ->> 'message_type' in ('media_placeholder', 'unknown'), x.n
  ) best
  left join public.whatsapp_messages m
    on m.workspace_id = (best.i).workspace_id and m.channel_id = (best.i).channel_id and m.wamid = (best.i).wamid
  where m.id is null
     or m.origin = 'history' and ((best.i).fields ->> 'origin' <> 'history'
          or m.message_type = 'media_placeholder' and (best.i).fields ->> 'message_type' <> 'media_placeholder')
     -- Stored before we could read its type: a replay puts that right.
     or m.message_type = 'unknown' and (best.i).fields ->> 'message_type' <> 'unknown'
        and (m.origin = 'history' or (best.i).fields ->> 'origin' <> 'history');
  v_outcome.stored := '{}';
  v_outcome.suppressed := '{}';
  v_outcome.message_ids := '{}';

  if v_fresh is not null then
    with placed as (
      select f.*, p_contacts[f.person + 1] as contact_id, v.id as conversation_id, v.status as conversation_status,
             v.next_seq, v.first_seq, r.ai_enabled,
             f.fields ->> 'origin' as origin, f.fields ->> 'direction' as direction,
             case when f.fields ->> 'direction' = 'inbound' and f.fields ->> 'origin' = 'live' and v.group_id is null
                    and (v.blocked_at is not null or exists (
                      select from app.contact_blocks b
                      where b.workspace_id = f.workspace_id and b.contact_id = p_contacts[f.person + 1]))
               then app.suppressed_since(f.workspace_id, p_contacts[f.person + 1], f.sent_at) end as suppressed_at
      from pg_catalog.unnest(v_fresh) f
      join pg_catalog.unnest(p_routes) r on r.channel_id = f.channel_id
      join public.whatsapp_conversations v on v.workspace_id = f.workspace_id and v.id = p_conversations[f.thread + 1]
    ), numbered as (
      select p.*,
             case when p.origin = 'history'
               then p.first_seq - pg_catalog.row_number() over (
                 partition by p.conversation_id, p.origin = 'history' order by p.sent_at desc, p.wamid desc)
               else p.next_seq - 1 + pg_catalog.row_number() over (
                 partition by p.conversation_id, p.origin = 'history' order by p.sent_at, p.wamid)
             end as seq
      from placed p
    ), told as (
      select n.*, s.rank as state_rank, s.error, s.revoked_at, s.edited_at, s.edits,
             case when s.revoked_at is not null then null
                  when s.edited_at is not null then s.edit ->> 'content'
                  else n.fields ->> 'content' end as content,
             case when s.revoked_at is not null then '{}' else coalesce(s.edit -> 'payload', n.fields -> 'payload') end as payload
      from numbered n
      join app.message_states s on s.workspace_id = n.workspace_id and s.channel_id = n.channel_id and s.wamid = n.wamid
    ), inserted as (
      insert into public.whatsapp_messages (
        workspace_id, id, conversation_id, channel_id, contact_id, phone_number, direction, message_type, content, status,
        wamid, seq, payload, sent_at, reply_to_wamid, sender_wa_id, sender_user_id, content_version, origin,
        edited_at, revoked_at, suppressed_at, error, ai_state, ai_reason)
      select
        t.workspace_id, (t.fields ->> 'id')::uuid, t.conversation_id, t.channel_id, t.contact_id, t.fields ->> 'wa_id', t.direction,
        t.fields ->> 'message_type', t.content,
        case when t.direction = 'outbound' then app.status_of_rank(t.state_rank) end,
        t.wamid, t.seq, t.payload, t.sent_at, t.fields ->> 'reply_to', t.fields ->> 'wa_id', t.fields ->> 'user_id',
        1 + t.edits, t.origin, t.edited_at, t.revoked_at, t.suppressed_at,
        case when t.direction = 'outbound' and t.state_rank = 2 then t.error end,
        case when a.reason is null then 'pending' else 'skipped' end, a.reason
      from told t
      cross join lateral (
        select app.not_analysed_because(t.direction, t.origin, t.fields ->> 'message_type', t.content, t.ai_enabled,
          t.conversation_status, t.suppressed_at is not null, t.revoked_at is not null) as reason
      ) a
      on conflict (workspace_id, channel_id, wamid) do nothing
      returning id, conversation_id, seq, sent_at, phone_number, wamid, direction, origin, suppressed_at, revoked_at
    ), moved as (
      select n.conversation_id,
             max(n.seq) filter (where n.origin <> 'history') as last_seq,
             min(n.seq) filter (where n.origin = 'history') as first_seq,
             max(n.sent_at) filter (where n.suppressed_at is null) as last_at,
             max(n.sent_at) filter (where n.suppressed_at is null and n.direction = 'inbound' and n.origin = 'live') as last_inbound_at,
             count(*) filter (where n.suppressed_at is null and n.direction = 'inbound' and n.origin = 'live'
                                and n.revoked_at is null) as unread,
             (pg_catalog.array_agg(n.phone_number order by n.sent_at desc, n.wamid desc)
               filter (where n.phone_number is not null and n.suppressed_at is null))[1] as phone_number,
             max(n.sent_at) filter (where n.phone_number is not null and n.suppressed_at is null) as phone_at
      from inserted n
      group by n.conversation_id
    ), unsure as (
      -- What adding up cannot know: what a block leaves to be shown, which of two numbers was seen last.
      select c.workspace_id, pg_catalog.array_agg(c.id order by c.id) as ids
      from moved m
      join public.whatsapp_conversations c on c.id = m.conversation_id
      where c.workspace_id in (select r.workspace_id from pg_catalog.unnest(p_routes) r)
        and c.contact_id is not null
        and (c.phone_number <> m.phone_number and m.phone_at <= c.last_message_at
          or m.last_at < c.last_message_at and exists ( -- opened by something suppressed: that time is the block's
            select from app.contact_blocks b
            where b.workspace_id = c.workspace_id and b.contact_id = c.contact_id and b.blocked_at = c.last_message_at))
      group by c.workspace_id
    ), counted as (
      update public.whatsapp_conversations c
      set next_seq = coalesce(m.last_seq + 1, c.next_seq),
          first_seq = coalesce(m.first_seq, c.first_seq),
          unread_count = c.unread_count + m.unread,
          last_message_at = greatest(c.last_message_at, m.last_at),
          last_inbound_at = greatest(c.last_inbound_at, m.last_inbound_at),
          window_expires_at = greatest(c.last_inbound_at, m.last_inbound_at) + interval '24 hours',
          phone_number = case when c.group_id is null then coalesce(m.phone_number, c.phone_number) end,
          status = case when c.status = 'archived' and r.reopens and m.last_inbound_at > c.archived_at then 'open' else c.status end,
          archived_at = case when c.status = 'archived' and r.reopens and m.last_inbound_at > c.archived_at then null else c.archived_at end
      from moved m, pg_catalog.unnest(p_routes) r
      where c.id = m.conversation_id
        and r.channel_id = c.channel_id
        and c.workspace_id = r.workspace_id
    )
    select pg_catalog.array_agg(f.n), pg_catalog.array_agg(f.n) filter (where n.suppressed_at is not null), pg_catalog.array_agg(n.id),
           (select pg_catalog.jsonb_agg(u) from unsure u)
    into v_stored, v_suppressed, v_message_ids, v_unsure
    from inserted n
    join pg_catalog.unnest(v_fresh) f on (f.fields ->> 'id')::uuid = n.id;
    v_outcome.stored := coalesce(v_stored, '{}');
    v_outcome.suppressed := coalesce(v_suppressed, '{}');
    v_outcome.message_ids := coalesce(v_message_ids, '{}');

    for v_workspace_id, v_conversation_ids in
      select u.workspace_id, u.ids from pg_catalog.jsonb_to_recordset(v_unsure) as u(workspace_id uuid, ids uuid[])
    loop
      perform app.recount_conversations(v_workspace_id, v_conversation_ids);
    end loop;

    perform app.keep_media(v_fresh, v_outcome.message_ids);
  end if;

  if v_raised is not null then
    v_outcome := app.raise_messages(v_raised, p_routes, p_contacts, v_outcome);
  end if;
  return v_outcome;
end;
$$;
revoke execute on function app.keep_messages from public;
grant execute on function app.keep_messages to service_role;

-- Put what a better copy says into rows of ours: a live one makes history unread and analysed, once. Rare.
create function app.raise_messages(
  p_items app.batch_item[], p_routes app.batch_route[], p_contacts uuid[], p_outcome app.batch_outcome
)
returns app.batch_outcome
language plpgsql
set search_path = ''
as $$
declare
  v_item app.batch_item;
  v_message public.whatsapp_messages;
  v_state app.message_states;
  v_conversation public.whatsapp_conversations;
  v_suppressed_at timestamptz;
  v_was_history boolean;
  v_reason text;
  v_recount jsonb := '[]';
  v_ids uuid[];
begin
  foreach v_item in array p_items loop
    select m.* into strict v_message
    from public.whatsapp_messages m
    where m.workspace_id = v_item.workspace_id and m.channel_id = v_item.channel_id and m.wamid = v_item.wamid;
    select s.* into strict v_state
    from app.message_states s
    where s.workspace_id = v_item.workspace_id and s.channel_id = v_item.channel_id and s.wamid = v_item.wamid;
    select v.* into strict v_conversation
    from public.whatsapp_conversations v
    where v.workspace_id = v_item.workspace_id and v.id = v_message.conversation_id;
    v_was_history := v_message.origin = 'history';
    v_message.origin := v_item.fields ->> 'origin';
    v_suppressed_at := null;
    if v_message.origin = 'live' and v_message.direction = 'inbound' and v_conversation.group_id is null then
      v_suppressed_at := app.suppressed_since(v_item.workspace_id, v_message.contact_id, v_item.sent_at);
    end if;
    v_message.content := case
      when v_state.revoked_at is not null then null
      when v_state.edited_at is not null then v_state.edit ->> 'content'
      else v_item.fields ->> 'content' end;
    v_reason := app.not_analysed_because(
      v_message.direction, v_message.origin, v_item.fields ->> 'message_type', v_message.content,
      (select r.ai_enabled from pg_catalog.unnest(p_routes) r where r.channel_id = v_item.channel_id),
      v_conversation.status, v_suppressed_at is not null, v_state.revoked_at is not null);

    update public.whatsapp_messages m
    set origin = v_message.origin,
        message_type = v_item.fields ->> 'message_type',
        content = v_message.content,
        payload = case when v_state.revoked_at is not null then '{}'
                       else coalesce(v_state.edit -> 'payload', v_item.fields -> 'payload') end,
        sent_at = v_item.sent_at,
        reply_to_wamid = v_item.fields ->> 'reply_to',
        sender_user_id = v_item.fields ->> 'user_id',
        sender_wa_id = v_item.fields ->> 'wa_id',
        phone_number = v_item.fields ->> 'wa_id',
        suppressed_at = v_suppressed_at,
        status = case when m.direction = 'outbound' then app.status_of_rank(v_state.rank) end,
        seq = case when v_was_history and v_message.origin <> 'history' then v_conversation.next_seq else m.seq end,
        ai_state = case when v_reason is null then 'pending' else 'skipped' end,
        ai_reason = v_reason
    where m.workspace_id = v_message.workspace_id
      and m.id = v_message.id;

    if v_was_history and v_message.origin <> 'history' then
      update public.whatsapp_conversations v
      set next_seq = v.next_seq + 1
      where v.workspace_id = v_message.workspace_id and v.id = v_conversation.id;
      if v_conversation.status = 'archived' and v_message.direction = 'inbound' and v_message.origin = 'live'
        and v_suppressed_at is null and v_item.sent_at > v_conversation.archived_at
        and (select r.reopens from pg_catalog.unnest(p_routes) r where r.channel_id = v_item.channel_id)
      then
        update public.whatsapp_conversations v
        set status = 'open', archived_at = null
        where v.workspace_id = v_message.workspace_id and v.id = v_conversation.id;
      end if;
    end if;
    if v_conversation.group_id is null and v_conversation.deleted_at is null then
      v_recount := v_recount || pg_catalog.jsonb_build_object('workspace_id', v_item.workspace_id, 'id', v_conversation.id);
    elsif v_was_history and v_message.direction = 'inbound' and v_message.origin = 'live' and v_state.revoked_at is null then
      update public.whatsapp_conversations v
      set unread_count = v.unread_count + 1,
          last_inbound_at = greatest(v.last_inbound_at, v_item.sent_at),
          window_expires_at = greatest(v.last_inbound_at, v_item.sent_at) + interval '24 hours'
      where v.workspace_id = v_message.workspace_id and v.id = v_conversation.id;
    end if;
    perform app.keep_media(array[(v_item.n, v_item.kind, v_item.rank, v_item.workspace_id, v_item.channel_id, v_item.portfolio_id,
      v_item.wamid, v_item.key, v_item.person, v_item.thread, v_item.sent_at,
      v_item.fields || pg_catalog.jsonb_build_object('id', v_message.id))::app.batch_item], array[v_message.id]);
    p_outcome.stored := p_outcome.stored || v_item.n;
    if v_suppressed_at is not null then
      p_outcome.suppressed := p_outcome.suppressed || v_item.n;
    end if;
    p_outcome.message_ids := p_outcome.message_ids || v_message.id;
  end loop;
  for v_conversation.workspace_id, v_ids in
    select r.workspace_id, pg_catalog.array_agg(distinct r.id)
    from pg_catalog.jsonb_to_recordset(v_recount) as r(workspace_id uuid, id uuid)
    group by r.workspace_id
    order by r.workspace_id
  loop
    perform app.recount_conversations(v_conversation.workspace_id, v_ids);
  end loop;
  return p_outcome;
end;
$$;
revoke execute on function app.raise_messages from public;
grant execute on function app.raise_messages to service_role;

-- Write down the files of new messages, and that they are to be fetched while Meta has them.
create function app.keep_media(p_items app.batch_item[], p_message_ids uuid[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  if not exists (select from pg_catalog.unnest(p_items) i where i.fields ? 'media') then
    return;
  end if;
  with files as (
    insert into public.media (workspace_id, id, message_id, meta_id, kind, mime_type, sha256, filename, is_voice, is_animated, state)
    select i.workspace_id, pg_catalog.gen_random_uuid(), (i.fields ->> 'id')::uuid, f.meta_id, f.kind, f.mime_type, f.sha256,
           f.filename, coalesce(f.is_voice, false), coalesce(f.is_animated, false),
           case when m.revoked_at is null then 'pending' else 'gone' end
    from pg_catalog.unnest(p_items) i
    join public.whatsapp_messages m on m.workspace_id = i.workspace_id and m.id = (i.fields ->> 'id')::uuid
    cross join lateral pg_catalog.jsonb_to_record(i.fields -> 'media') as f(
      meta_id text, kind text, mime_type text, sha256 text, filename text, is_voice boolean, is_animated boolean)
    where i.fields ? 'media'
      and (i.fields ->> 'id')::uuid = any (p_message_ids)
    on conflict (workspace_id, message_id, meta_id) do nothing
    returning workspace_id, id, message_id, state
  )
  insert into app.outbox (workspace_id, id, channel_id, kind, message_id, payload, priority, expires_at)
  select f.workspace_id, pg_catalog.gen_random_uuid(), m.channel_id, 'media_fetch', f.message_id,
         pg_catalog.jsonb_build_object('media_id', f.id), 7, now() + interval '7 days'
  from files f
  join public.whatsapp_messages m on m.workspace_id = f.workspace_id and m.id = f.message_id
  where f.state = 'pending';
end;
$$;
revoke execute on function app.keep_media from public;
grant execute on function app.keep_media to service_role;

-- Show on messages we had what the batch told of them: statuses on ours, edits and revokes on anybody's.
-- Returns the conversations with something to analyse anew.
create function app.apply_states(p_items app.batch_item[], p_conversations uuid[])
returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  v_changed record;
  v_due uuid[] := '{}';
begin
  update public.whatsapp_messages m
  set status = (array['queued', 'sent', 'failed', 'delivered', 'read', 'played'])[s.rank + 1],
      error = case when s.rank = 2 then s.error end
  from (
    select distinct i.workspace_id, i.channel_id, i.wamid
    from pg_catalog.unnest(p_items) i
    where i.rank is not null
  ) t
  join app.message_states s on s.workspace_id = t.workspace_id and s.channel_id = t.channel_id and s.wamid = t.wamid
  where m.workspace_id = t.workspace_id and m.channel_id = t.channel_id and m.wamid = t.wamid
    and m.direction = 'outbound'
    and (m.status is distinct from (array['queued', 'sent', 'failed', 'delivered', 'read', 'played'])[s.rank + 1]
      or m.error is distinct from case when s.rank = 2 then s.error end);

  if not exists (select from pg_catalog.unnest(p_items) i where i.kind in ('edit', 'revoke')) then
    return v_due;
  end if;

  -- Of what was deleted for everyone no earlier wording stays either.
  update app.message_states s
  set edit = null
  from (select distinct i.workspace_id, i.channel_id, i.wamid from pg_catalog.unnest(p_items) i where i.kind in ('edit', 'revoke')) t
  where s.workspace_id = t.workspace_id and s.channel_id = t.channel_id and s.wamid = t.wamid
    and s.revoked_at is not null
    and s.edit is not null;
  update public.message_events e
  set payload = null
  from (select distinct i.workspace_id, i.channel_id, i.wamid from pg_catalog.unnest(p_items) i where i.kind in ('edit', 'revoke')) t
  join app.message_states s on s.workspace_id = t.workspace_id and s.channel_id = t.channel_id and s.wamid = t.wamid
  where e.workspace_id = t.workspace_id and e.channel_id = t.channel_id and e.wamid = t.wamid and e.kind = 'edit'
    and e.payload is not null
    and s.revoked_at is not null;

  for v_changed in
    select m.workspace_id, m.id, m.conversation_id, m.direction, m.origin, m.message_type, m.suppressed_at, m.seq,
           s.revoked_at, s.edited_at, s.edit, s.edits, v.read_seq, v.status as conversation_status,
           m.revoked_at is null and s.revoked_at is not null as is_newly_revoked,
           w.settings -> 'ai_enabled' is distinct from 'false' as ai_enabled
    from (
      select distinct i.workspace_id, i.channel_id, i.wamid
      from pg_catalog.unnest(p_items) i
      where i.kind in ('edit', 'revoke')
    ) t
    join app.message_states s on s.workspace_id = t.workspace_id and s.channel_id = t.channel_id and s.wamid = t.wamid
    join public.whatsapp_messages m on m.workspace_id = t.workspace_id and m.channel_id = t.channel_id and m.wamid = t.wamid
    join public.whatsapp_conversations v on v.workspace_id = m.workspace_id and v.id = m.conversation_id
    join public.workspaces w on w.id = m.workspace_id
    where m.content_version <> 1 + s.edits
       or m.edited_at is distinct from s.edited_at
       or m.revoked_at is distinct from s.revoked_at
    order by m.workspace_id, m.id
    for no key update of m
  loop
    if v_changed.revoked_at is not null then
      update public.whatsapp_messages m
      set content = null, payload = '{}', edited_at = v_changed.edited_at, revoked_at = v_changed.revoked_at,
          content_version = 1 + v_changed.edits, ai_state = 'skipped',
          ai_reason = app.not_analysed_because(v_changed.direction, v_changed.origin, v_changed.message_type, null, true,
            v_changed.conversation_status, v_changed.suppressed_at is not null, true),
          sentiment = null, sentiment_score = null, intent = null, ai_summary = null, suggested_response = null,
          priority = null, language = null, analysed_at = null
      where m.workspace_id = v_changed.workspace_id and m.id = v_changed.id;
      update public.message_analyses a
      set result = '{}'
      where a.workspace_id = v_changed.workspace_id and a.message_id = v_changed.id;
      update public.media f
      set state = 'gone'
      where f.workspace_id = v_changed.workspace_id and f.message_id = v_changed.id and f.state = 'pending';
      update app.outbox o
      set state = 'expired'
      where o.workspace_id = v_changed.workspace_id and o.message_id = v_changed.id and o.state = 'due' and o.kind = 'media_fetch';
      if v_changed.is_newly_revoked and v_changed.direction = 'inbound' and v_changed.origin = 'live'
        and v_changed.suppressed_at is null and v_changed.seq > v_changed.read_seq
      then
        update public.whatsapp_conversations v
        set unread_count = greatest(0, v.unread_count - 1)
        where v.workspace_id = v_changed.workspace_id and v.id = v_changed.conversation_id;
      end if;
    else
      update public.whatsapp_messages m
      set content = v_changed.edit ->> 'content', payload = coalesce(v_changed.edit -> 'payload', m.payload),
          edited_at = v_changed.edited_at, content_version = 1 + v_changed.edits,
          ai_attempts = 0,
          ai_state = case when a.reason is null then 'pending' else 'skipped' end,
          ai_reason = a.reason
      from (
        select app.not_analysed_because(v_changed.direction, v_changed.origin, v_changed.message_type, v_changed.edit ->> 'content',
          v_changed.ai_enabled, v_changed.conversation_status, v_changed.suppressed_at is not null, false) as reason
      ) a
      where m.workspace_id = v_changed.workspace_id and m.id = v_changed.id;
      v_due := v_due || v_changed.conversation_id;
    end if;
  end loop;
  return v_due;
end;
$$;
revoke execute on function app.apply_states from public;
grant execute on function app.apply_states to service_role;

create table public.channel_intake (
  workspace_id uuid not null,
  channel_id uuid not null,
  newest_sent_at timestamptz not null, -- Meta's time of the newest item recorded
  recorded_at timestamptz not null, -- when that was
  primary key (workspace_id, channel_id),
  foreign key (workspace_id, channel_id) references public.whatsapp_channels (workspace_id, id)
);
comment on table public.channel_intake is 'How far behind Meta each number is: recorded_at less newest_sent_at, while items come in.';
alter table public.channel_intake enable row level security;
revoke all on public.channel_intake from anon, authenticated, service_role;
grant select on public.channel_intake to authenticated;
grant select, insert, update on public.channel_intake to service_role;
create policy "Members see how far behind their numbers are" on public.channel_intake
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

-- Record a batch of webhook bodies. Repeating it, in any order, beside any other recorder, changes nothing more.
-- p_batch: {numbers: [phone_number_id], accounts: [waba_id],
--   bodies: [{id, received_at, raw (base64; null when the row exists), items, first, events, quarantined: [{item, reason}]}],
--     whose items are first … first + events - 1,
--   changes: [{n, id, number, account, event_type, payload, received_at, body_id}],
--   people: [{n, number, id, user_id, wa_id, parent_user_id, seen_at, facts}],
--   threads: [{n, number, person, group_id, id}],
--   items: [{n, number, kind, rank, wamid, key, person, thread, sent_at, fields}],
--   account_items: [{n, change, number, account, waba_id, event, sent_at}], kept_items: [{n, change_id, number, account}]}.
-- number, account (only without a number), change, person, thread are places in those lists, from 0; ids are proposals, for what is new.
-- fields: see shared/store/webhook_batch.py, which builds all this.
-- p_settle_ms: how long a conversation may settle before Claude looks, so that a burst is one call.
-- Returns {stored, suppressed, unrouted: [item]; the others were known already, due: conversations for Claude}.
-- Locks: identities, contacts, conversations, message_states, messages, then the rest; each in key order.
create function public.record_webhook_batch(p_batch jsonb, p_settle_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
-- A batch is small and the tables are not: by index, always. (On a young table the planner prefers to read it whole for
-- every batch, which took two thirds of the time.) Planned for each batch: a plan made while a table was empty would
-- serve until its first analysis, by whichever index came first (1.7 ms an item instead of 0.1). 2026-11-24.
set enable_seqscan = off
set random_page_cost = 1.1
set plan_cache_mode = force_custom_plan
set jit = off
as $$
declare
  v_routes app.batch_route[];
  v_owners app.batch_route[]; -- by account
  v_logged uuid[];
  v_unrouted integer[] := '{}';
  v_people app.batch_person[];
  v_items app.batch_item[];
  v_unknown app.batch_person[];
  v_alone uuid[];
  v_workspace_id uuid;
  v_contacts uuid[] := '{}';
  v_sharing integer[];
  v_conversations uuid[];
  v_outcome app.batch_outcome;
  v_stored integer[] := '{}';
  v_due uuid[] := '{}';
  v_due_count integer;
begin
  -- 1. Route each item by the number of its own change. Channels are read once: one that is connected while we are at
  -- it must not be there for the account but not for the messages.
  select pg_catalog.array_agg(row(
    n.ordinality - 1, c.workspace_id, c.id, c.portfolio_id, c.phone_number_id, c.waba_id,
    w.settings -> 'ai_enabled' is distinct from 'false', w.settings -> 'reopen_archived' is not distinct from 'true')::app.batch_route)
  into v_routes
  from pg_catalog.jsonb_array_elements_text(p_batch -> 'numbers') with ordinality n(phone_number_id)
  join public.whatsapp_channels c on c.phone_number_id = n.phone_number_id and c.state <> 'disconnected'
  join public.workspaces w on w.id = c.workspace_id;

  select pg_catalog.array_agg(row(n.ordinality - 1, c.workspace_id, null, null, null, n.waba_id, null, null)::app.batch_route)
  into v_owners
  from pg_catalog.jsonb_array_elements_text(p_batch -> 'accounts') with ordinality n(waba_id)
  cross join lateral (
    select distinct x.workspace_id
    from public.whatsapp_channels x
    where x.waba_id = n.waba_id
      and x.state <> 'disconnected'
  ) c;

  select pg_catalog.array_agg(row(
    i.n, i.kind, i.rank, r.workspace_id, r.channel_id, r.portfolio_id, i.wamid, i.key, i.person, i.thread,
    i.sent_at, i.fields)::app.batch_item order by r.workspace_id, r.channel_id, i.wamid, i.n)
  into v_items
  from pg_catalog.jsonb_to_recordset(p_batch -> 'items') as i(
    n integer, kind text, rank smallint, number integer, wamid text, key text, person integer, thread integer,
    sent_at timestamptz, fields jsonb)
  join pg_catalog.unnest(v_routes) r on r.number = i.number;

  -- What was recorded before went to whoever had the number then. Whoever has it now gets what comes now.
  select pg_catalog.array_agg(i order by i.workspace_id, i.channel_id, i.wamid, i.n)
  into v_items
  from pg_catalog.unnest(v_items) i
  left join (
    select b.first, b.first + b.events as past, r.channel_id
    from pg_catalog.jsonb_to_recordset(p_batch -> 'changes') as c(id uuid, number integer, received_at timestamptz, body_id uuid)
    join pg_catalog.unnest(v_routes) r on r.number = c.number
    join public.whatsapp_webhooks w on w.body_received_at = c.received_at and w.id = c.id and w.workspace_id <> r.workspace_id
    join pg_catalog.jsonb_to_recordset(p_batch -> 'bodies') as b(id uuid, first integer, events integer) on b.id = c.body_id
    offset 0
  ) moved on i.n >= moved.first and i.n < moved.past and i.channel_id = moved.channel_id
  where moved.channel_id is null;

  if v_items is not null then
    select pg_catalog.array_agg(row(
      p.n, r.workspace_id, r.portfolio_id, p.id, p.user_id, p.wa_id, p.parent_user_id, p.seen_at, p.facts)::app.batch_person order by p.n)
    into v_people
    from pg_catalog.jsonb_to_recordset(p_batch -> 'people') as p(
      n integer, number integer, id uuid, user_id text, wa_id text, parent_user_id text, seen_at timestamptz, facts jsonb)
    join pg_catalog.unnest(v_routes) r on r.number = p.number
    where p.n in (select i.person from pg_catalog.unnest(v_items) i)
       or p.n in (select (i.fields ->> 'previous_person')::integer from pg_catalog.unnest(v_items) i where i.kind = 'identity');

    -- 2. Who is meant. Workspaces in which somebody is new are held alone, the others shared.
    v_unknown := app.unknown_people(v_people);
    select pg_catalog.array_agg(distinct u.workspace_id) into v_alone
    from (
      select p.workspace_id from pg_catalog.unnest(v_unknown) p
      union all
      select i.workspace_id from pg_catalog.unnest(v_items) i where i.kind = 'identity'
    ) u;
    for v_workspace_id in select distinct r.workspace_id from pg_catalog.unnest(v_routes) r order by r.workspace_id loop
      perform app.lock_identities(array[v_workspace_id], coalesce(v_workspace_id = any (v_alone), false));
    end loop;

    if exists (
      select from app.tombstones t where t.workspace_id in (select r.workspace_id from pg_catalog.unnest(v_routes) r))
    then
      v_items := app.without_tombstones(v_items, v_people);
      select pg_catalog.array_agg(p order by p.n) into v_people
      from pg_catalog.unnest(v_people) p
      where p.n in (select i.person from pg_catalog.unnest(v_items) i)
         or p.n in (select (i.fields ->> 'previous_person')::integer from pg_catalog.unnest(v_items) i where i.kind = 'identity');
    end if;

    v_unknown := app.unknown_people(v_people); -- anew, now that nobody else decides
    if v_unknown is not null then
      if exists (select from pg_catalog.unnest(v_unknown) u where u.workspace_id <> all (coalesce(v_alone, '{}'))) then
        raise exception 'somebody was erased meanwhile' using errcode = '40001';
      end if;
      perform app.learn_people(v_unknown);
    end if;
    if v_alone is not null then
      v_stored := v_stored || app.keep_identity_changes(v_items);
    end if;

    select pg_catalog.array_agg(coalesce(i.contact_id, case
             when p.user_id is null and p.wa_id is not null
             then app.contact_of(p.workspace_id, p.portfolio_id, null, p.wa_id, p.seen_at) end) order by k.n),
           pg_catalog.array_agg(k.n::integer) filter (where i.facts is not null)
    into v_contacts, v_sharing
    from pg_catalog.generate_series(0, pg_catalog.jsonb_array_length(p_batch -> 'people') - 1) k(n)
    left join pg_catalog.unnest(v_people) p on p.n = k.n
    left join public.contact_identities i
      on i.workspace_id = p.workspace_id and i.portfolio_id = p.portfolio_id
     and i.kind = 'bsuid' and i.value = p.user_id and i.user_id = p.user_id;

    v_stored := v_stored || app.keep_person_facts(v_people, v_contacts, v_sharing, v_items);

    -- 3. Conversations, states, events, messages.
    v_conversations := app.open_conversations(p_batch -> 'threads', v_routes, v_contacts, array(
      select distinct b.thread
      from (
        select distinct on (i.workspace_id, i.channel_id, i.wamid) i.thread -- as keep_messages chooses
        from pg_catalog.unnest(v_items) i
        where i.kind = 'message'
          and not exists (
            select from public.whatsapp_messages m
            where m.workspace_id = i.workspace_id and m.channel_id = i.channel_id and m.wamid = i.wamid)
        order by i.workspace_id, i.channel_id, i.wamid, i.fields ->> 'origin' = 'history',
                 i.fields ->> 'message_type' in ('media_placeholder', 'unknown'), i.n
      ) b), v_items);
    perform app.fold_states(v_items);
    v_stored := v_stored || app.keep_events(v_items, v_contacts);
    v_outcome := app.keep_messages(v_items, v_routes, v_contacts, v_conversations);
    v_due := app.apply_states(v_items, v_conversations);
    if exists (
      select from pg_catalog.unnest(v_items) i
      where i.kind = 'file' or i.kind = 'message' and i.fields ->> 'message_type' = 'media_placeholder')
    then
      v_stored := v_stored || app.keep_files(v_items);
    end if;

    -- A customer's reaction or call opens the window as a message would.
    update public.whatsapp_conversations v
    set last_inbound_at = greatest(v.last_inbound_at, a.last_at),
        window_expires_at = greatest(v.last_inbound_at, a.last_at) + interval '24 hours'
    from (
      select i.workspace_id, v_conversations[i.thread + 1] as id, max(i.sent_at) as last_at
      from pg_catalog.unnest(v_items) i
      where (i.fields -> 'by_customer')::boolean
        and i.thread is not null
        and app.suppressed_since(i.workspace_id, v_contacts[i.person + 1], i.sent_at) is null
      group by i.workspace_id, v_conversations[i.thread + 1]
    ) a
    where v.workspace_id = a.workspace_id
      and v.id = a.id
      and v.contact_id is not null
      and v.last_inbound_at is distinct from greatest(v.last_inbound_at, a.last_at);

    -- 4. What Claude has to look at.
    with due as (
      select m.workspace_id, m.conversation_id
      from (select distinct r.workspace_id from pg_catalog.unnest(v_routes) r) r
      cross join pg_catalog.unnest(v_outcome.message_ids) n(id)
      cross join lateral (
        select x.workspace_id, x.conversation_id, x.ai_state
        from public.whatsapp_messages x
        where x.workspace_id = r.workspace_id
          and x.id = n.id
        offset 0
      ) m
      where m.ai_state = 'pending'
      union
      select v.workspace_id, v.id
      from public.whatsapp_conversations v
      where v.workspace_id in (select r.workspace_id from pg_catalog.unnest(v_routes) r)
        and v.id = any (v_due)
    ), queued as (
      insert into app.conversation_work (workspace_id, conversation_id, due_at)
      select workspace_id, conversation_id, now() + pg_catalog.make_interval(secs => p_settle_ms / 1000.0)
      from due
      order by workspace_id, conversation_id
      -- One that waits for its next try keeps its turn. It stays: only who holds the conversation takes a work row away.
      on conflict (workspace_id, conversation_id) do nothing
      returning 1
    )
    select count(*) into v_due_count from due;
    v_stored := v_stored || v_outcome.stored;
  end if;

  -- 5. The log, the account, and how far behind Meta each number is.
  v_logged := app.log_changes(p_batch -> 'changes', p_batch -> 'numbers', p_batch -> 'accounts', v_routes, v_owners);
  if p_batch ? 'kept_items' then
    select v_stored || coalesce(pg_catalog.array_agg(i.n), '{}') into v_stored
    from pg_catalog.jsonb_to_recordset(p_batch -> 'kept_items') as i(n integer, change_id uuid, number integer, account integer)
    where i.change_id = any (v_logged)
      and (exists (select from pg_catalog.unnest(v_routes) r where r.number = i.number)
        or i.number is null and exists (select from pg_catalog.unnest(v_owners) r where r.number = i.account));
  end if;
  if p_batch ? 'account_items' then
    v_stored := v_stored || app.keep_account_items(p_batch, v_routes, v_owners);
  end if;
  if coalesce(pg_catalog.array_length(v_routes, 1), 0) < pg_catalog.jsonb_array_length(p_batch -> 'numbers')
    or pg_catalog.jsonb_array_length(p_batch -> 'accounts') > 0
  then
    select coalesce(pg_catalog.array_agg(i.n), '{}') into v_unrouted
    from (
      select x.n, x.number, x.account
      from pg_catalog.unnest(array['items', 'kept_items', 'account_items']) l
      cross join lateral pg_catalog.jsonb_to_recordset(p_batch -> l) as x(n integer, number integer, account integer)
    ) i
    where not exists (select from pg_catalog.unnest(v_routes) r where r.number = i.number)
      and not exists (select from pg_catalog.unnest(v_owners) r where i.number is null and r.number = i.account);
  end if;
  perform app.account_for_bodies(p_batch -> 'bodies', v_stored, coalesce(v_outcome.suppressed, '{}'), v_unrouted);

  insert into public.channel_intake as k (workspace_id, channel_id, newest_sent_at, recorded_at)
  select i.workspace_id, i.channel_id, max(i.sent_at), now()
  from pg_catalog.unnest(v_items) i
  where not exists ( -- once a second will do: two recorders would wait for each other here
    select from public.channel_intake x
    where x.workspace_id = i.workspace_id and x.channel_id = i.channel_id and x.recorded_at > now() - interval '1 second')
  group by i.workspace_id, i.channel_id
  order by i.workspace_id, i.channel_id
  on conflict (workspace_id, channel_id) do update
    set newest_sent_at = excluded.newest_sent_at, recorded_at = excluded.recorded_at
    where excluded.newest_sent_at > k.newest_sent_at; -- what is recorded again, or late, says nothing of how we keep up

  return pg_catalog.jsonb_build_object(
    'stored', v_stored, 'suppressed', coalesce(v_outcome.suppressed, '{}'), 'unrouted', v_unrouted, 'due', coalesce(v_due_count, 0));
end;
$$;
revoke execute on function public.record_webhook_batch from public, anon, authenticated;
grant execute on function public.record_webhook_batch to service_role;

-- Say what record_webhook_batch would do, and leave everything as it is.
create function public.try_webhook_batch(p_batch jsonb, p_settle_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_result jsonb;
begin
  begin
    v_result := public.record_webhook_batch(p_batch, p_settle_ms);
    raise exception 'only tried' using errcode = 'PT299';
  exception when sqlstate 'PT299' then
    null; -- its rows are undone, the variable is not
  end;
  return v_result;
end;
$$;
revoke execute on function public.try_webhook_batch from public, anon, authenticated;
grant execute on function public.try_webhook_batch to service_role;

-- Items but those about deleted messages or erased people.
create function app.without_tombstones(p_items app.batch_item[], p_people app.batch_person[])
returns app.batch_item[]
language sql
stable
set search_path = ''
as $$
  select pg_catalog.array_agg(i order by i.workspace_id, i.channel_id, i.wamid, i.n)
  from pg_catalog.unnest(p_items) i
  left join pg_catalog.unnest(p_people) p on p.n = i.person
  where not exists (
      select from app.tombstones t
      where t.workspace_id = i.workspace_id
        and t.sent_before is null
        and t.digest = app.message_digest(i.channel_id, i.wamid))
    and not exists (
      select from app.tombstones t
      where t.workspace_id = i.workspace_id
        and t.sent_before >= i.sent_at
        and t.digest in (app.person_digest(p.portfolio_id, p.user_id), app.person_digest(p.portfolio_id, p.wa_id),
                         app.person_digest(p.portfolio_id, i.fields ->> 'previous_user_id'),
                         app.person_digest(p.portfolio_id, i.fields ->> 'previous_wa_id')));
$$;
revoke execute on function app.without_tombstones from public;
grant execute on function app.without_tombstones to service_role;

-- Log the changes, each for the workspace it concerns; those about an account for every workspace with a number there.
-- Returns the log ids that are new, or newly routed.
create function app.log_changes(p_changes jsonb, p_numbers jsonb, p_accounts jsonb, p_routes app.batch_route[], p_owners app.batch_route[])
returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  v_ids uuid[];
begin
  with changes as (
    select c.id, r.workspace_id, c.event_type, c.payload, p_numbers ->> c.number as phone_number_id,
           p_accounts ->> c.account as waba_id, c.received_at, c.body_id
    from pg_catalog.jsonb_to_recordset(p_changes) as c(
      id uuid, number integer, account integer, event_type text, payload jsonb, received_at timestamptz, body_id uuid)
    left join pg_catalog.unnest(p_routes) r on r.number = c.number
    where c.number is not null
    union all
    -- Whoever has the row already keeps it; of several at first the first.
    select case when o.workspace_id is null or o.workspace_id = coalesce(
                  (select w.workspace_id from public.whatsapp_webhooks w where w.body_received_at = c.received_at and w.id = c.id),
                  pg_catalog.first_value(o.workspace_id) over (partition by c.id order by o.workspace_id)) then c.id
                else pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256(pg_catalog.convert_to(
                  c.id || ' ' || o.workspace_id, 'UTF8')), 1, 16), 'hex')::uuid end,
           o.workspace_id, c.event_type, c.payload, null, p_accounts ->> c.account, c.received_at, c.body_id
    from pg_catalog.jsonb_to_recordset(p_changes) as c(
      id uuid, number integer, account integer, event_type text, payload jsonb, received_at timestamptz, body_id uuid)
    left join pg_catalog.unnest(p_owners) o on o.number = c.account
    where c.number is null
  ), logged as (
    insert into public.whatsapp_webhooks as w (
      id, workspace_id, event_type, payload, processed, phone_number_id, waba_id, body_received_at, body_id)
    select c.id, c.workspace_id, c.event_type, c.payload, c.workspace_id is not null, c.phone_number_id, c.waba_id,
           c.received_at, c.body_id
    from changes c
    on conflict (body_received_at, id) do update
      set workspace_id = excluded.workspace_id, processed = true
      where not w.processed
        and excluded.processed
    returning w.id
  )
  select coalesce(pg_catalog.array_agg(l.id), '{}') into v_ids from logged l;
  return v_ids;
end;
$$;
revoke execute on function app.log_changes from public;
grant execute on function app.log_changes to service_role;

-- Record what concerns accounts, numbers and templates, once for every workspace concerned.
-- Returns the items that were new to any of them.
create function app.keep_account_items(p_batch jsonb, p_routes app.batch_route[], p_owners app.batch_route[])
returns integer[]
language sql
set search_path = ''
as $$
  with events as (
    select i.n, coalesce(r.workspace_id, o.workspace_id) as workspace_id, r.channel_id,
           i.waba_id, p_batch -> 'numbers' ->> i.number as phone_number_id,
           c.event_type as field, i.event, i.sent_at, c.received_at, c.payload
    from pg_catalog.jsonb_to_recordset(p_batch -> 'account_items') as i(
      n integer, change integer, number integer, account integer, waba_id text, event text, sent_at timestamptz)
    join pg_catalog.jsonb_to_recordset(p_batch -> 'changes') as c(
      n integer, id uuid, event_type text, received_at timestamptz, payload jsonb) on c.n = i.change
    left join pg_catalog.unnest(p_routes) r on r.number = i.number
    left join pg_catalog.unnest(p_owners) o on i.number is null and o.number = i.account
    where o.workspace_id is not null
       or exists ( -- logged before for whoever had the number then: theirs
         select from public.whatsapp_webhooks w
         where w.body_received_at = c.received_at and w.id = c.id and w.workspace_id = r.workspace_id)
  )
  select coalesce(pg_catalog.array_agg(distinct n::integer), '{}')
  from pg_catalog.jsonb_array_elements_text(app.record_account_events(
    (select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(e)), '[]') from events e))) n;
$$;
revoke execute on function app.keep_account_items from public;
grant execute on function app.keep_account_items to service_role;

-- Account for every item of every body, and keep its bytes. A body recorded before is accounted for anew only in what
-- was unrouted or quarantined then: the rest of it is known by now.
-- p_bodies: as record_webhook_batch has them. The arrays hold places of items; whatever is in none was known already.
create function app.account_for_bodies(p_bodies jsonb, p_stored integer[], p_suppressed integer[], p_unrouted integer[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  with counted as (
    select b.first, count(s.n) - count(h.n) as stored, count(h.n) as suppressed, count(u.n) as unrouted
    from pg_catalog.jsonb_to_recordset(p_bodies) as b(first integer, events integer)
    cross join lateral pg_catalog.generate_series(b.first, b.first + b.events - 1) i
    left join (select distinct n from pg_catalog.unnest(p_stored) n) s on s.n = i
    left join (select distinct n from pg_catalog.unnest(p_suppressed) n) h on h.n = i
    left join (select distinct n from pg_catalog.unnest(p_unrouted) n) u on u.n = i
    where b.events > 0
    group by b.first
  ), bodies as (
    select b.*, coalesce(c.stored, 0) as stored, coalesce(c.suppressed, 0) as suppressed, coalesce(c.unrouted, 0) as unrouted,
           coalesce(pg_catalog.jsonb_array_length(b.quarantined), 0) as set_aside
    from pg_catalog.jsonb_to_recordset(p_bodies) as b(
      id uuid, received_at timestamptz, raw text, items integer, first integer, events integer, quarantined jsonb)
    left join counted c on c.first = b.first and b.events > 0
  ), recorded as (
    insert into app.webhook_bodies as o (
      received_at, id, raw, state, items, stored, duplicate, unrouted, suppressed, quarantined, recorded_at)
    select n.received_at, n.id, coalesce(pg_catalog.decode(n.raw, 'base64'), ''), 'recorded', n.items,
           n.stored, n.items - n.stored - n.suppressed - n.unrouted - n.set_aside, n.unrouted, n.suppressed, n.set_aside, now()
    from bodies n
    order by n.received_at, n.id
    on conflict (received_at, id) do update
      set state = 'recorded',
          items = excluded.items,
          stored = least(o.stored + excluded.stored, excluded.items - excluded.unrouted - excluded.quarantined - excluded.suppressed),
          suppressed = least(o.suppressed + excluded.suppressed, excluded.items - excluded.unrouted - excluded.quarantined
            - least(o.stored + excluded.stored, excluded.items - excluded.unrouted - excluded.quarantined - excluded.suppressed)),
          unrouted = excluded.unrouted,
          quarantined = excluded.quarantined,
          duplicate = greatest(0, excluded.items - excluded.unrouted - excluded.quarantined
            - (o.stored + excluded.stored) - (o.suppressed + excluded.suppressed)),
          recorded_at = now()
  )
  insert into app.quarantine as q (body_received_at, body_id, item, reason)
  select b.received_at, b.id, x.item, x.reason
  from bodies b
  cross join lateral pg_catalog.jsonb_to_recordset(b.quarantined) as x(item integer, reason text)
  where b.set_aside > 0
  on conflict (body_received_at, body_id, item) do update
    set reason = excluded.reason, state = case when q.state = 'retried' then 'open' else q.state end;

  -- What was set aside before and went through now.
  update app.quarantine q
  set state = 'retried'
  from pg_catalog.jsonb_to_recordset(p_bodies) as b(id uuid, received_at timestamptz, quarantined jsonb)
  where q.body_received_at = b.received_at
    and q.body_id = b.id
    and q.state <> 'retried' -- a dropped one may go through after all
    and not exists (
      select from pg_catalog.jsonb_to_recordset(b.quarantined) as x(item integer) where x.item = q.item);
end;
$$;
revoke execute on function app.account_for_bodies from public;
grant execute on function app.account_for_bodies to service_role;

notify pgrst, 'reload schema';
