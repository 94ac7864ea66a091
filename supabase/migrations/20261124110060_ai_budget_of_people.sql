-- What owners and admins see and set of what Claude may cost.
set lock_timeout = '5s';

grant execute on function app.budget_day, app.budget_day_ends, app.ai_budget_usd, app.ai_budget_used to parley_writer;
grant select on app.ai_budget_days to parley_writer;
create policy "Writers see what was spent" on app.ai_budget_days
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
grant update (due_at) on app.conversation_work to parley_writer;
create policy "Writers call deferred work" on app.conversation_work
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

create function app.ai_budget_json(p_workspace public.workspaces)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'workspace_id', p_workspace.id,
    'enabled', p_workspace.settings -> 'ai_enabled' is distinct from 'false',
    'daily_budget_usd', app.ai_budget_usd(p_workspace.settings),
    'day', t.day,
    'ends_at', app.budget_day_ends(p_workspace.time_zone, t.day),
    'spent_usd', coalesce(d.spent_usd, 0),
    'reserved_usd', coalesce(d.reserved_usd, 0),
    'step', case -- the same lines as app.open_analysis_attempt() and app.reserve_ai() draw
      when p_workspace.settings -> 'ai_enabled' = 'false' or app.ai_budget_usd(p_workspace.settings) = 0 then 'off'
      when app.ai_budget_used(p_workspace) >= 0.85 then 'cheaper_model'
      when app.ai_budget_used(p_workspace) >= 0.70 then 'no_small_talk'
      else 'all'
    end,
    'deferred', (
      select count(*)
      from app.conversation_work w
      where w.workspace_id = p_workspace.id
        and w.due_at = app.budget_day_ends(p_workspace.time_zone, t.day)))
  from (select app.budget_day(p_workspace.time_zone, now()) as day) t
  left join app.ai_budget_days d on d.workspace_id = p_workspace.id and d.day = t.day;
$$;
revoke execute on function app.ai_budget_json from public;
grant execute on function app.ai_budget_json to parley_writer;

-- What Claude may cost a workspace a day, and has cost it today.
-- Called by: services/api and frontends, as the user. Refuses: PT404 not a member, PT403 an agent or viewer.
create function public.ai_budget(p_workspace_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_workspace public.workspaces;
begin
  perform app.check_manager(p_workspace_id, 'workspace');
  select * into strict v_workspace
  from public.workspaces
  where id = p_workspace_id;
  return app.ai_budget_json(v_workspace);
end;
$$;
revoke execute on function public.ai_budget from public, anon, service_role;
grant execute on function public.ai_budget to authenticated;
select app.give_to_writer('public.ai_budget');

-- Change it: {enabled?: boolean, daily_budget_usd?: 0 to 100000 or null for none}. What was put off for want of money is
-- looked at again at once.
-- Writes: workspaces (one row), conversation_work, audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 not a member, PT403 an agent or viewer, PT422 another name or value. As it is already: fine.
create function public.change_ai_budget(p_workspace_id uuid, p_changes jsonb)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_workspace public.workspaces;
  v_before jsonb;
begin
  perform app.check_manager(p_workspace_id, 'workspace');
  if p_changes is null or pg_catalog.jsonb_typeof(p_changes) <> 'object'
    or p_changes - 'enabled' - 'daily_budget_usd' <> '{}'
    or coalesce(p_changes -> 'enabled', 'true') not in ('true', 'false')
    or coalesce(pg_catalog.jsonb_typeof(p_changes -> 'daily_budget_usd'), 'null') not in ('number', 'null')
    or coalesce((p_changes ->> 'daily_budget_usd')::numeric, 0) not between 0 and 100000
  then
    raise exception 'no such setting or value' using
      errcode = 'PT422', detail = 'setting_not_valid', hint = 'enabled: true or false; daily_budget_usd: 0 to 100000, or null for none.';
  end if;
  select * into strict v_workspace
  from public.workspaces
  where id = p_workspace_id
  for no key update;
  v_before := app.ai_budget_json(v_workspace);
  update public.workspaces
  set settings = settings
    || case when p_changes ? 'enabled' then pg_catalog.jsonb_build_object('ai_enabled', p_changes -> 'enabled') else '{}' end
    || case when p_changes ? 'daily_budget_usd'
         then pg_catalog.jsonb_build_object('ai_daily_budget_usd', p_changes -> 'daily_budget_usd') else '{}' end
  where id = p_workspace_id
  returning * into v_workspace;

  update app.conversation_work w
  set due_at = now()
  from (
    select k.conversation_id
    from app.conversation_work k
    where k.workspace_id = p_workspace_id
      and k.lease_token is null
      and k.due_at = (v_before ->> 'ends_at')::timestamptz
    order by k.conversation_id
    for update
  ) k
  where w.workspace_id = p_workspace_id
    and w.conversation_id = k.conversation_id;

  if (v_before -> 'enabled', v_before -> 'daily_budget_usd')
    is distinct from (app.ai_budget_json(v_workspace) -> 'enabled', app.ai_budget_json(v_workspace) -> 'daily_budget_usd')
  then
    perform app.audit(
      p_workspace_id, 'workspace.ai_budget_changed', p_workspace_id,
      pg_catalog.jsonb_build_object('enabled', v_before -> 'enabled', 'daily_budget_usd', v_before -> 'daily_budget_usd'),
      p_changes);
  end if;
  return app.ai_budget_json(v_workspace);
end;
$$;
revoke execute on function public.change_ai_budget from public, anon, service_role;
grant execute on function public.change_ai_budget to authenticated;
select app.give_to_writer('public.change_ai_budget');

-- What all workers together have before them, for metrics: {due, deferred: for want of money, oldest_due_ms,
-- budgets_spent: workspaces whose day's budget is (nearly) out, most_used: the fullest, from 0 to 1, batched}.
create function public.analysis_health()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'due', (select count(*) from app.conversation_work w where w.due_at <= now() and w.lease_token is null),
    'oldest_due_ms', (
      select coalesce(max(extract(epoch from now() - w.due_at) * 1000), 0)::bigint
      from app.conversation_work w
      where w.due_at <= now() and w.lease_token is null),
    'deferred', (select count(*) from app.conversation_work w where w.due_at > now() + interval '15 minutes'),
    'budgets_spent', count(*) filter (where u.used >= 0.85),
    'most_used', coalesce(max(u.used), 0),
    'batched', (select count(*) from app.ai_batch_requests))
  from (
    select app.ai_budget_used(w) as used
    from public.workspaces w
    where w.settings ? 'ai_daily_budget_usd'
  ) u;
$$;
revoke execute on function public.analysis_health from public, anon, authenticated;
grant execute on function public.analysis_health to service_role;

notify pgrst, 'reload schema';
