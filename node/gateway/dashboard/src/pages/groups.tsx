// Consumer groups: who is in them, what each member has, and how far behind they are.

import { useState } from "react";
import { query, useLoad } from "../api";
import { compact, count, moment, plural, rate } from "../format";
import { link } from "../route";
import type { Group, GroupLag, GroupSummary } from "../types";
import { Badge, Empty, Meter, Panel, Stat, Trouble, groupTone } from "../ui";

const SHOWN = 300;

function List() {
  const [search, setSearch] = useState("");
  const { data, problem } = useLoad<{ groups: GroupSummary[] }>(`/v1/cluster/groups${query({ search })}`, 2_000);
  const groups = data?.groups ?? [];
  const most = Math.max(0, ...groups.map((group) => group.lag));
  return (
    <Panel
      title="Groups"
      aside={<input type="search" placeholder="Search" aria-label="Search groups by name" value={search} onChange={(event) => setSearch(event.target.value)} />}
    >
      {problem !== undefined && <Trouble problem={problem} retrying />}
      {data !== undefined && groups.length === 0 && (
        <Empty title={search === "" ? "No group so far" : "No group has that in its name"}>
          {search === "" && <>A group appears when its first consumer joins: <code>strandline consume --topic events --group mine</code></>}
        </Empty>
      )}
      {groups.length > 0 && (
        <div className="scroll">
          <table>
            <thead>
              <tr><th>Group</th><th>State</th><th className="num extra">Partitions</th><th className="num">Reads</th><th className="num">Lag</th><th className="bar extra" /></tr>
            </thead>
            <tbody>
              {groups.map((group) => (
                <tr key={group.group}>
                  <td>{group.state === "View" ? <>{group.group} <span className="muted">keeps its offsets itself</span></> : <a href={link("groups", group.group)}>{group.group}</a>}</td>
                  <td><Badge tone={groupTone(group.state)}>{group.state}</Badge></td>
                  <td className="num extra">{compact(group.partitions)}</td>
                  <td className="num">{rate(group.rate)}</td>
                  <td className="num">{compact(group.lag)}</td>
                  <td className="bar extra"><Meter part={group.lag} whole={most} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

function Detail({ name }: { name: string }) {
  const path = `/v1/groups/${encodeURIComponent(name)}`;
  const { data: group, problem } = useLoad<Group>(path, 2_000);
  const { data: lag, problem: lagProblem } = useLoad<GroupLag>(`${path}/lag`, 2_000);
  const owners = new Map((group?.members ?? []).flatMap((member) => member.partitions.map((p) => [`${p.topic}-${p.partition}`, member.clientId || member.memberId] as const)));
  const most = Math.max(0, ...(lag?.partitions ?? []).map((partition) => partition.lag ?? 0));
  return (
    <>
      <p className="crumbs">
        <a href={link("groups")}>Groups</a> / <strong>{name}</strong>
      </p>
      {problem !== undefined && <Trouble problem={problem} retrying />}
      <div className="stats">
        <Stat label="State" value={group === undefined ? "–" : <Badge tone={groupTone(group.state)}>{group.state}</Badge>} note={group === undefined ? "" : `generation ${group.generation}`} />
        <Stat label="Lag" value={compact(lag?.lag)} note="records" />
        <Stat label="Members" value={group === undefined ? "–" : group.members.length} />
        <Stat label="Assignor" value={group?.protocol || "–"} />
        <Stat label="Coordinator" value={group === undefined ? "–" : `Node ${group.coordinator}`} />
      </div>
      <div className="grid two">
        <Panel title="Members and assignments">
          {group !== undefined && group.members.length === 0 && <Empty title="Nobody is in the group">Its offsets stay, for whoever joins next.</Empty>}
          <ul className="members">
            {group?.members.map((member) => (
              <li key={member.memberId}>
                <strong>{member.clientId || member.memberId}</strong> <span className="muted">{member.clientHost}</span>
                <p className="member-id">{member.instanceId ?? member.memberId}</p>
                <p className="chips">
                  {member.partitions.length === 0 && <span className="muted">no partitions</span>}
                  {member.partitions.slice(0, 60).map((p) => <span className="chip" key={`${p.topic}-${p.partition}`}>{p.topic}-{p.partition}</span>)}
                  {member.partitions.length > 60 && <span className="muted">and {member.partitions.length - 60} more</span>}
                </p>
              </li>
            ))}
          </ul>
        </Panel>
        <Panel title="Lag by partition">
          {lagProblem !== undefined && <Trouble problem={lagProblem} retrying />}
          {lag !== undefined && lag.partitions.length === 0 && <Empty title="Nothing committed">The group has committed no offset so far.</Empty>}
          {lag !== undefined && lag.partitions.length > 0 && (
            <div className="scroll tall">
              <table>
                <thead>
                  <tr><th>Partition</th><th className="extra">Owner</th><th className="num extra">Committed</th><th className="num extra">End</th><th className="num">Lag</th><th className="bar" /></tr>
                </thead>
                <tbody>
                  {lag.partitions.slice(0, SHOWN).map((p) => (
                    <tr key={`${p.topic}-${p.partition}`} title={p.committedAt === null ? undefined : `committed ${moment(p.committedAt)}`}>
                      <td><a href={`${link("topics", p.topic)}?partition=${p.partition}`}>{p.topic}-{p.partition}</a></td>
                      <td className="muted extra">{owners.get(`${p.topic}-${p.partition}`) ?? "nobody"}</td>
                      <td className="num extra">{count(p.committed)}</td>
                      <td className="num extra">{count(p.highWatermark)}</td>
                      <td className="num">{compact(p.lag)}</td>
                      <td className="bar"><Meter part={p.lag ?? 0} whole={most} /></td>
                    </tr>
                  ))}
                </tbody>
              </table>
              {lag.partitions.length > SHOWN && <p className="muted note">The first {SHOWN} of {plural(lag.partitions.length, "partition")}.</p>}
            </div>
          )}
        </Panel>
      </div>
    </>
  );
}

export function GroupsPage({ name }: { name: string | undefined }) {
  return (
    <>
      <h1 className="sr">{name === undefined ? "Groups" : `Group ${name}`}</h1>
      {name === undefined ? <List /> : <Detail name={name} />}
    </>
  );
}
