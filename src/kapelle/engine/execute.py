"""Execute: start the agents that dispatch gave out, prompt them, read what they say, and stop those with nothing to do.

Per agent there are at most four acts: *deploy* (workspace, set-up, start), *watch* (read the spool to its end), *send* (write
one prompt) and *stop*. What they find is written down in ``step``; see ``turns.py`` for what it means.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

from kapelle.core import agent as agents
from kapelle.core.account import Account, account_of
from kapelle.core.agent import Agent, AgentState
from kapelle.core.attempt import Attempt, Outcome, PromptRecord, PromptState, home_of, left_behind, next_to_send, unsaid
from kapelle.core.budget import Resource
from kapelle.core.conversation import WAITED_FOR, ConversationEvent, Prompt
from kapelle.core.errors import KapelleError
from kapelle.core.events import AgentAdopted, AgentDeployed, PromptSent, WorkspacePrepared
from kapelle.core.frozen import frozen, replace
from kapelle.core.ids import AccountId, AgentId, PromptId
from kapelle.core.isolation_events import SandboxLeft
from kapelle.core.ports import Codec, Driver, Ended
from kapelle.core.rule_events import WardenFailed
from kapelle.core.run import Run
from kapelle.core.store import Tx, WorkspaceRow
from kapelle.core.task import Task, TaskState
from kapelle.core.wording import go_on, hand_over
from kapelle.engine.accounts import Accounts, waits
from kapelle.engine.acts import Acts, Finding
from kapelle.engine.boxing import cleared, met, way_of
from kapelle.engine.deploy import Deployed, Deployment, box_of, codec_of
from kapelle.engine.ending import give_up_attempt, move, run_of, wait
from kapelle.engine.handing import give_back
from kapelle.engine.holds import Brakes, brakes_of, its_purse
from kapelle.engine.meter import EngineMeter, Totals, write_down
from kapelle.engine.pulse import Pulse
from kapelle.engine.purses import Purse, task_key
from kapelle.engine.reuse import Again, Renewal
from kapelle.engine.rooms import workspace_for
from kapelle.engine.secrets import revoke, take_back
from kapelle.engine.showing import has_session, show
from kapelle.engine.spares import take_on
from kapelle.engine.spending import Spending
from kapelle.engine.steering import write_frozen, write_thawed
from kapelle.engine.stillness import freeze, thaw
from kapelle.engine.tickets import model_access, ticket_of
from kapelle.engine.turns import Turns
from kapelle.engine.warden import EngineWarden, watched
from kapelle.engine.witness import Witness
from kapelle.engine.world import World

AT_WORK = frozenset({TaskState.ASSIGNED, TaskState.RUNNING, TaskState.VALIDATING})


@frozen
class _Orders:
    """What a transaction decided is to be done."""

    deploy: tuple[Deployment, ...] = ()
    watch: tuple[Deployment, ...] = ()
    send: tuple[tuple[Agent, Driver, PromptRecord], ...] = ()
    stop: tuple[tuple[Agent, Driver], ...] = ()
    renew: tuple[Renewal, ...] = ()
    show: tuple[Agent, ...] = ()
    freeze: tuple[AgentId, ...] = ()
    thaw: tuple[AgentId, ...] = ()


class ExecuteStage:
    """Looks after every live agent."""

    name = "execute"

    def __init__(
        self,
        world: World,
        acts: Acts,
        meter: EngineMeter,
        warden: EngineWarden,
        witness: Witness,
        pulse: Pulse,
        base_url: str,
    ) -> None:
        self._world = world
        self._pulse = pulse
        self._warden = warden
        self._acts = acts
        self._meter = meter
        self._witness = witness
        self._base_url = base_url
        self._accounts = Accounts(world)
        self._spending = Spending(world)
        self._turns = Turns(world, self._accounts)
        self._closed: Mapping[AccountId, Account] = {}
        """The accounts that are not open, in the transaction that is running."""
        self._brakes = Brakes(now=world.clock.now())
        """What else keeps agents from working, in that transaction."""
        self._codecs: dict[AgentId, Codec] = {}
        self._again = Again(world, acts)
        self._shown: set[AgentId] = set()
        """Whose sessions this leader has opened, or tried to."""
        self._ends_at: datetime | None = None
        """When the next agent that a person has stopped is ended in the middle of its turn."""

    def leave(self) -> None:
        """Begin nothing new, and take every agent that ends from now on as ended by this leader: nothing is counted.

        Agents that are being deployed are left to the next leader, which finds them in the store.
        """
        self._turns.leaving = True
        self._acts.cancel_all(lambda key: cast("tuple[str, str]", key)[0] == "deploy")

    async def step(self, now: datetime) -> datetime | None:
        """See ``engine.stage.Stage``."""
        findings = self._acts.take()
        taken = self._meter.take()
        heard = self._witness.take()

        def decide(tx: Tx) -> tuple[_Orders, Mapping[AccountId, Account], Brakes, Totals]:
            write_down(tx, taken)
            tx.log(*heard)
            self._accounts.hear_calls(tx, taken.calls)
            # Before what agents say of it: then it is known why they may not go on.
            self._spending.reached(tx, taken.reached)
            for finding in findings:
                finding(tx)
            self._closed = {row.account_id: row for row in tx.accounts.not_open()}
            self._brakes = brakes_of(tx, tx.now)
            orders = self._decide(tx)
            purses = [_purse(order) for order in (*orders.deploy, *orders.watch)]
            return orders, self._closed, self._brakes, self._meter.unknown(tx, purses)

        try:
            orders, accounts, brakes, totals = await self._world.store.transact(decide, term=self._world.term)
        except BaseException:
            self._acts.give_back(findings)
            self._meter.give_back(taken)
            self._witness.give_back(heard)
            raise
        # In this order: whoever is let go by the second is held by the first when it asks for the next call.
        self._meter.hold(accounts, brakes)
        self._meter.written(taken)
        self._meter.know(totals)
        self._carry_out(orders)
        if self._acts.pressing or orders.send:
            # The stages before this one look at what has changed.
            return now
        later = (moment for moment in (self._ends_at, self._again.next(now)) if moment is not None and moment > now)
        return min(later, default=None)

    # --- Deciding, inside the transaction ---

    def _decide(self, tx: Tx) -> _Orders:
        live = tx.agents.live()
        self._ends_at = min((agent.ends_at for agent in live if agent.ends_at is not None), default=None)
        found: list[_Orders] = [self._about(tx, agent) for agent in live]
        return _Orders(
            deploy=tuple(entry for orders in found for entry in orders.deploy),
            watch=tuple(entry for orders in found for entry in orders.watch),
            send=tuple(entry for orders in found for entry in orders.send),
            stop=tuple(entry for orders in found for entry in orders.stop),
            renew=tuple(entry for orders in found for entry in orders.renew),
            show=tuple(entry for orders in found for entry in orders.show),
            freeze=tuple(entry for orders in found for entry in orders.freeze),
            thaw=tuple(entry for orders in found for entry in orders.thaw),
        )

    def _about(self, tx: Tx, agent: Agent) -> _Orders:
        task, attempt = tx.tasks.get(agent.task_id), tx.attempts.get(agent.attempt_id)
        if task is None or attempt is None:
            return _Orders()
        if agent.term != tx.term:
            agent, attempt = self._adopt(tx, agent, attempt)
        if agent.state is AgentState.STOPPED:
            return _Orders()
        run = run_of(tx, task)
        driver = self._world.driver(run.spec.config(attempt.config).program)
        wanted = attempt.ended_at is None and task.attempt_id == attempt.attempt_id and task.state in AT_WORK
        if agent.process is None or agent.state is AgentState.DEPLOYING:
            wanted = wanted and agent.ends_at is None
            deploying = self._acts.running(("deploy", agent.agent_id))
            if wanted and not self._turns.leaving and not deploying:
                return self._to_deploy(tx, agent, task, attempt, run, driver)
            if wanted or deploying:
                return _Orders()
            if agent.process is None:
                tx.agents.put(agents.move(agent, AgentState.STOPPED, tx.now))
                if agent.by_hand and attempt.ended_at is None and attempt.held_by:
                    # Handed back before there was a screen.
                    give_back(self._world, tx, task, attempt)
                return _Orders()
            # It was a spare, and has not taken on its task: it is ended as any agent is.
            agent = agents.move(agent, AgentState.ACTIVE, tx.now)
        workspace = tx.agents.workspace(attempt.workspace_id) if attempt.workspace_id is not None else None
        watch = self._deployment(agent, task, attempt, run, driver, workspace) if workspace is not None else None
        watching = (watch,) if watch is not None else ()
        if not wanted and watch is not None and (rest := self._again.rest(tx, watch, self._turns, self._brakes)):
            return _Orders(watch=watching if rest.watched else (), renew=rest.renew)
        over = not wanted or _stopped(tx, agent) or self._held(tx, task, attempt, run, driver)
        # Whoever started it is gone, and it hears nobody else: another process is told what it was to be told.
        over = over or (agent.agent_id in self._turns.adopted and self._to_hear(tx, agent, task, attempt, driver) is not None)
        if agent.state is AgentState.ACTIVE and over:
            agent = agents.move(agent, AgentState.COMPLETING, tx.now)
            tx.agents.put(agent)
        if agent.state is AgentState.COMPLETING:
            return _Orders(watch=watching, stop=((agent, driver),))
        if agent.frozen_by or agent.frozen_at is not None:
            # Nothing is said to it until it goes on.
            return replace(_stillness(agent), watch=watching)
        own = driver.capabilities.always_screen
        shown = has_session(run.spec.config(attempt.config), agent, own=own) and agent.agent_id not in self._shown
        show = (agent,) if shown else ()
        return _Orders(watch=watching, send=self._to_send(tx, agent, task, attempt, driver), show=show)

    def _held(self, tx: Tx, task: Task, attempt: Attempt, run: Run, driver: Driver) -> bool:
        """Say whether an agent is to stop, or idle and may not be prompted: its room is for others until then."""
        if task.state is not TaskState.RUNNING:
            return False
        braked = self._brakes.of(run, task, calls=driver.capabilities.uses_gateway)
        if self._brakes.halt is not None and braked is not None and driver.capabilities.conversation:
            # In the middle of its turn, too: nobody knows when it would call next, and who halts wants it quiet.
            wait(tx, task, braked.wait, braked.detail, until=braked.until)
            return True
        found = self._closed.get(account_of(run.spec.upstream).account_id) if self._closed else None
        shut = found is not None and found.shut and driver.capabilities.uses_gateway
        if braked is None and not shut:
            return False
        states = {prompt.state for prompt in tx.attempts.prompts(attempt.attempt_id)}
        if PromptState.PENDING not in states or states & {PromptState.SENT, PromptState.TAKEN}:
            return False
        if braked is not None:
            wait(tx, task, braked.wait, braked.detail, until=braked.until)
        elif found is not None:
            kind, detail, until = waits(found)
            wait(tx, task, kind, detail, until=until)
        return True

    def _adopt(self, tx: Tx, agent: Agent, attempt: Attempt) -> tuple[Agent, Attempt]:
        """Take over what an earlier leader left, with this leader's term; what was not started yet is deployed by it."""
        attempt = replace(attempt, term=tx.term)
        agent = replace(agent, term=tx.term)
        if agent.process is None:
            # It may have been started, and reaped since: what that process wrote is not read as the next one's.
            agent = replace(agent, folder=f"{self._world.folders.agent(agent.agent_id)}-{tx.term}")
        elif agent.state is not AgentState.DEPLOYING:
            self._turns.adopted.add(agent.agent_id)
            tx.log(AgentAdopted(run_id=agent.run_id, task_id=agent.task_id, agent_id=agent.agent_id))
        tx.attempts.put(attempt)
        tx.agents.put(agent)
        return agent, attempt

    def _to_deploy(self, tx: Tx, agent: Agent, task: Task, attempt: Attempt, run: Run, driver: Driver) -> _Orders:
        workspace = tx.agents.workspace(attempt.workspace_id) if attempt.workspace_id is not None else None
        if workspace is None:
            workspace = workspace_for(self._world, tx, run, task)
            attempt = replace(attempt, workspace_id=workspace.workspace_id)
            tx.agents.put_workspace(workspace)
            tx.attempts.put(attempt)
        prompts = tx.attempts.prompts(attempt.attempt_id)
        resume = any(prompt.state in {PromptState.TAKEN, PromptState.ANSWERED} for prompt in prompts)
        if agent.process is None and not resume:
            # A program that was ended in its first model call has begun a conversation, and has not said so yet. No other
            # begins one that there is already.
            attempt = replace(attempt, conversation_id=self._world.chance.uuid())
            tx.attempts.put(attempt)
        if resume and not agent.by_hand and agent.state is AgentState.DEPLOYING:
            agent = agents.move(agent, AgentState.RECOVERING, tx.now)
            tx.agents.put(agent)
        first = next((prompt for prompt in prompts if prompt.state is PromptState.PENDING), None)
        integration = None
        if workspace.repository is not None and run.spec.target is not None:
            integration = tx.changes.integration(workspace.repository, run.spec.target, run.line)
        deployment = replace(
            self._deployment(agent, task, attempt, run, driver, workspace),
            resume=resume,
            hand_over=left_behind(prompts),
            first_prompt=None if first is None else Prompt(prompt_id=first.prompt_id, text=first.text),
            integration=integration,
            raised_usd=self._brakes.raises.get((task_key(task.task_id), Resource.USD), 0.0),
        )
        return _Orders(deploy=(deployment,))

    def _deployment(
        self, agent: Agent, task: Task, attempt: Attempt, run: Run, driver: Driver, workspace: WorkspaceRow
    ) -> Deployment:
        asks = driver.capabilities.asks
        known = self._warden.known(agent, attempt) if asks else None
        return Deployment(
            agent=agent,
            task=task,
            attempt=attempt,
            run=run,
            driver=driver,
            workspace=workspace,
            ticket=ticket_of(agent, task, attempt, run, workspace),
            access=model_access(agent, run, self._base_url) if driver.capabilities.uses_gateway else None,
            watched=(known or watched(self._world, agent, run, attempt, workspace)) if asks else None,
        )

    def _to_hear(self, tx: Tx, agent: Agent, task: Task, attempt: Attempt, driver: Driver) -> PromptRecord | None:
        """Return the next prompt of an agent, if it is to be told anything now."""
        if task.state is not TaskState.RUNNING or not driver.capabilities.conversation or self._turns.leaving:
            return None
        if agent.ends_at is not None or agent.by_hand or agent.frozen_by or agent.frozen_at is not None:
            return None
        return next_to_send(tx.attempts.prompts(attempt.attempt_id), adopted=agent.agent_id in self._turns.adopted)

    def _to_send(
        self, tx: Tx, agent: Agent, task: Task, attempt: Attempt, driver: Driver
    ) -> tuple[tuple[Agent, Driver, PromptRecord], ...]:
        """Mark the next prompt as sent, before it is."""
        pending = self._to_hear(tx, agent, task, attempt, driver)
        if pending is None:
            return ()
        sent = replace(pending, state=PromptState.SENT)
        tx.attempts.put_prompt(sent)
        tx.log(_sent(task, sent))
        return ((agent, driver, sent),)

    # --- Acting ---

    def _carry_out(self, orders: _Orders) -> None:
        for order in (*orders.deploy, *orders.watch):
            # A repeated admission renews what the token stands for: the round.
            self._admit(order)
        for order in orders.deploy:
            self._acts.start(("deploy", order.agent.agent_id), self._deploy(order))
        for order in orders.watch:
            self._acts.start(("watch", order.agent.agent_id), self._watch(order))
        for agent, driver, prompt in orders.send:
            if not prompt.aside:
                self._pulse.prompted(agent.agent_id)
            self._acts.start(("send", prompt.prompt_id), self._send(agent, driver, prompt))
        for agent in orders.show:
            self._shown.add(agent.agent_id)
            self._acts.start(("show", agent.agent_id), self._show(agent))
        for agent_id in orders.freeze:
            self._acts.start(("still", agent_id), self._freeze(agent_id))
        for agent_id in orders.thaw:
            self._acts.start(("still", agent_id), self._thaw(agent_id))
        for agent, driver in orders.stop:
            self._acts.start(("stop", agent.agent_id), self._stop(agent, driver))
        for renewal in orders.renew:
            self._again.start(renewal)

    def _admit(self, order: Deployment) -> None:
        self._meter.open(order.agent.agent_id, _purse(order))
        if order.access is not None and order.access.base_url is not None:
            self._world.gateway.admit(order.ticket)
        if order.watched is not None:
            self._warden.open(order.watched)

    async def _deploy(self, order: Deployment) -> Finding:
        try:
            self._let_ask(order)
            deployed = await take_on(self._world, order)
        except KapelleError as error:
            self._world.warden.dismiss(order.agent.agent_id)
            revoke(self._world, order.agent.agent_id)
            return self._deployment_failed(order, Outcome.LAUNCH_FAILED, error.in_full)
        if isinstance(deployed, str):
            return self._deployment_failed(order, Outcome.SETUP_FAILED, deployed)
        return self._deployed(order, deployed)

    def _let_ask(self, order: Deployment) -> None:
        if order.watched is not None:
            self._world.warden.admit(order.agent.agent_id, order.watched.access)

    def _deployed(self, order: Deployment, deployed: Deployed) -> Finding:
        def write(tx: Tx) -> None:
            agent = tx.agents.get(order.agent.agent_id)
            task = tx.tasks.get(order.task.task_id)
            if agent is None or task is None:
                return
            tx.agents.put_workspace(replace(order.workspace, base=deployed.base, ready=True))
            started = replace(agent, process=deployed.process, folder=deployed.folder)
            tx.agents.put(agents.move(started, AgentState.ACTIVE, tx.now))
            if deployed.conversation_id and (attempt := tx.attempts.get(order.attempt.attempt_id)) is not None:
                tx.attempts.put(replace(attempt, conversation_id=deployed.conversation_id))
            run_id, task_id = task.run_id, task.task_id
            if not order.workspace.ready:
                tx.log(WorkspacePrepared(run_id=run_id, task_id=task_id, path=order.workspace.path, base=deployed.base or ""))
            config = order.attempt.config
            tx.log(
                AgentDeployed(run_id=run_id, task_id=task_id, agent_id=agent.agent_id, config=config, pid=deployed.process.pid)
            )
            if order.hand_over:
                self._hand_over(tx, task, order.attempt, deployed.changed)
            if not order.driver.capabilities.conversation and order.first_prompt is not None:
                self._taken_by_argument(tx, task, order.first_prompt)
            if task.state is TaskState.ASSIGNED and task.attempt_id == order.attempt.attempt_id:
                move(tx, task, TaskState.RUNNING)

        return write

    def _hand_over(self, tx: Tx, task: Task, attempt: Attempt, changed: Sequence[str]) -> None:
        """Give a fresh conversation its first prompt: the task, and what the one before it had done."""
        said = tx.attempts.prompts(attempt.attempt_id)
        if not said or not left_behind(said):
            return
        later = [prompt.text for prompt in said[1:] if prompt.text != go_on() and not unsaid(prompt)]
        text = hand_over(said[0].text, later[-1] if later else "", changed, task.summary)
        prompt_id = PromptId(self._world.chance.uuid())
        record = PromptRecord(prompt_id=prompt_id, attempt_id=attempt.attempt_id, round=attempt.round, text=text)
        tx.attempts.put_prompt(record)

    @staticmethod
    def _taken_by_argument(tx: Tx, task: Task, first: Prompt) -> None:
        prompt = tx.attempts.prompt(first.prompt_id)
        if prompt is not None:
            tx.attempts.put_prompt(replace(prompt, state=PromptState.TAKEN))
            run_id, task_id = task.run_id, task.task_id
            tx.log(PromptSent(run_id=run_id, task_id=task_id, prompt_id=prompt.prompt_id, round=prompt.round, text=prompt.text))

    def _deployment_failed(self, order: Deployment, outcome: Outcome, message: str) -> Finding:
        def write(tx: Tx) -> None:
            agent = tx.agents.get(order.agent.agent_id)
            if agent is not None and agent.state is not AgentState.STOPPED:
                tx.agents.put(agents.move(agent, AgentState.STOPPED, tx.now))
            task, attempt = tx.tasks.get(order.task.task_id), tx.attempts.get(order.attempt.attempt_id)
            if task is None or attempt is None or attempt.ended_at is not None:
                return
            if order.agent.by_hand:
                give_back(self._world, tx, task, attempt, reason=message)
                return
            give_up_attempt(tx, task, attempt, outcome, message, chance=self._world.chance.share())

        return write

    async def _watch(self, order: Deployment) -> Finding | None:
        """Read the agent's spool to its end; every piece is a finding."""
        agent = order.agent
        if agent.process is None:
            return None
        await self._reopen(order)
        try:
            self._let_ask(order)
        except KapelleError as error:
            # What its program asks is denied when its patience is at an end; all else goes on.
            why = WardenFailed(run_id=agent.run_id, task_id=agent.task_id, agent_id=agent.agent_id, reason=error.in_full)
            self._acts.report(lambda tx: tx.log(why))
        codec = codec_of(order)
        self._codecs[agent.agent_id] = codec
        self._pulse.open(agent.agent_id, adopted=agent.agent_id in self._turns.adopted)
        offset = await self._read_again(agent, order.driver, codec)
        try:
            while True:
                spool = await self._world.host.look(agent.process, agent.folder, offset)
                said = list(codec.feed(spool.data)) if spool.data else []
                if spool.data:
                    self._pulse.heard(agent.agent_id, said, order.driver.capabilities.writers)
                offset += len(spool.data)
                if spool.ended is not None:
                    said.extend(codec.finish(spool.ended))
                    return await self._cleared(order, offset, said, spool.ended)
                if said:
                    urgent = any(isinstance(each, WAITED_FOR) for each in said)
                    self._acts.report(self._read(agent.agent_id, offset, said), urgent=urgent)
                if not spool.data:
                    await self._world.host.wait(agent.process, agent.folder, offset)
        finally:
            self._codecs.pop(agent.agent_id, None)
            self._pulse.close(agent.agent_id)
            self._shown.discard(agent.agent_id)
            self._world.gateway.dismiss(agent.agent_id)
            self._world.warden.dismiss(agent.agent_id)
            self._warden.close(agent.agent_id)
            self._meter.close(agent.agent_id)

    async def _reopen(self, order: Deployment) -> None:
        """Open the way of an agent that an earlier leader started; for one of this leader's own it is open."""
        box = box_of(order, self._world.folders.home(home_of(order.attempt)))
        try:
            await way_of(self._world, box)
        except KapelleError as error:
            agent = order.agent
            left = SandboxLeft(run_id=agent.run_id, task_id=agent.task_id, sandbox=box.sandbox, reason=error.in_full)
            self._acts.report(lambda tx: tx.log(left))

    async def _read_again(self, agent: Agent, driver: Driver, codec: Codec) -> int:
        """Feed the codec what an earlier leader has read and written down already, so that it knows where it is."""
        offset = 0
        while offset < agent.offset and agent.process is not None:
            spool = await self._world.host.look(agent.process, agent.folder, offset, agent.offset - offset)
            if not spool.data:
                break
            self._pulse.heard(agent.agent_id, codec.feed(spool.data), driver.capabilities.writers)
            offset += len(spool.data)
        return offset

    async def _cleared(self, order: Deployment, offset: int, said: Sequence[ConversationEvent], ended: Ended) -> Finding:
        """Remove what is left of an agent that has ended; the last finding about it."""
        agent, config = order.agent, order.run.spec.config(order.attempt.config)
        limit, left = None, None
        if config.terminal:
            await self._world.terminal.close(self._world.folders.terminal(agent.agent_id))
        if agent.by_hand or order.driver.capabilities.always_screen:
            # Whoever was ended by force had no time to.
            await self._world.terminal.close(agent.folder)
        try:
            try:
                remains = await cleared(self._world, box_of(order, self._world.folders.home(home_of(order.attempt))))
                limit = met(remains, config.isolation.limits)
            finally:
                await take_back(self._world, config, agent)
        except KapelleError as error:
            left = SandboxLeft(run_id=agent.run_id, task_id=agent.task_id, sandbox=config.sandbox, reason=error.in_full)

        def write(tx: Tx) -> None:
            if left is not None:
                tx.log(left)
            self._turns.take_in(tx, agent.agent_id, offset, said, ended, limit)

        return write

    def _read(self, agent_id: AgentId, offset: int, said: Sequence[ConversationEvent]) -> Finding:
        def write(tx: Tx) -> None:
            self._turns.take_in(tx, agent_id, offset, said)

        return write

    async def _send(self, agent: Agent, driver: Driver, prompt: PromptRecord) -> Finding | None:
        codec = self._codecs.get(agent.agent_id) or driver.codec()
        data = codec.prompt(Prompt(prompt_id=prompt.prompt_id, text=prompt.text))
        if agent.process is not None and await self._world.host.write(agent.process, data):
            return None

        def write(tx: Tx) -> None:
            # It cannot be spoken to any more (an earlier leader started it, or it has ended): another process will be.
            current, record = tx.agents.get(agent.agent_id), tx.attempts.prompt(prompt.prompt_id)
            if record is not None and record.state is PromptState.SENT:
                tx.attempts.put_prompt(replace(record, state=PromptState.PENDING))
            if current is not None and current.state is AgentState.ACTIVE:
                tx.agents.put(agents.move(current, AgentState.COMPLETING, tx.now))

        return write

    async def _show(self, agent: Agent) -> Finding | None:
        said = await show(self._world, agent)
        return None if said is None else lambda tx: tx.log(said)

    async def _freeze(self, agent_id: AgentId) -> Finding:
        reason = await freeze(self._world, agent_id)
        return lambda tx: write_frozen(tx, agent_id, reason)

    async def _thaw(self, agent_id: AgentId) -> Finding:
        left = await thaw(self._world, agent_id)
        return lambda tx: write_thawed(tx, agent_id, left)

    async def _stop(self, agent: Agent, driver: Driver) -> None:
        """End an agent; the watch act sees it end and writes that down."""
        if agent.process is None:
            return
        if agent.frozen_at is not None:
            # It could not end by itself, however long it was waited for.
            await thaw(self._world, agent.agent_id)
        # At once: whatever it does until it has ended, it does without them.
        revoke(self._world, agent.agent_id)
        codec = self._codecs.get(agent.agent_id) or driver.codec()
        if goodbye := codec.goodbye():
            await self._world.host.write(agent.process, goodbye)
        await self._world.host.close_input(agent.process)
        await self._world.host.end(agent.process, agent.folder, grace=self._world.settings.goodbye)


def _sent(task: Task, prompt: PromptRecord) -> PromptSent:
    return PromptSent(
        run_id=task.run_id,
        task_id=task.task_id,
        prompt_id=prompt.prompt_id,
        round=prompt.round,
        text=prompt.text,
        sender=prompt.sender,
    )


def _stopped(tx: Tx, agent: Agent) -> bool:
    """Say whether a person has stopped the agent, and its turn is over or has had its time."""
    if agent.ends_at is None:
        return False
    states = {prompt.state for prompt in tx.attempts.prompts(agent.attempt_id)}
    return tx.now >= agent.ends_at or not states & {PromptState.SENT, PromptState.TAKEN}


def _stillness(agent: Agent) -> _Orders:
    """Return what is to be done so that an agent stands still, or goes on, as a person wants."""
    if agent.frozen_by:
        return _Orders(freeze=(agent.agent_id,) if agent.frozen_at is None else ())
    return _Orders(thaw=(agent.agent_id,))


def _purse(order: Deployment) -> Purse:
    agent = order.agent
    return replace(its_purse(order.run, order.task, agent.created_at), rested=agent.rested, frozen_at=agent.frozen_at)
