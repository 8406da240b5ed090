# -*- python -*-
# The master of the tests and of the demo: a builder for every way in which a build can end.
import json
import os

from buildbot.plugins import schedulers, steps, util, worker
from buildbot.process import buildstep
from twisted.internet import defer

settings = json.load(open(os.path.join(basedir, 'settings.json')))
markers = os.path.join(basedir, 'markers')
os.makedirs(markers, exist_ok=True)


class Ends(buildstep.BuildStep):
    """Ends with the given results."""

    def __init__(self, ends, **kwargs):
        super().__init__(**kwargs)
        self.ends = ends

    @defer.inlineCallbacks
    def run(self):
        yield self.addCompleteLog('stdio', 'ends with %s\n' % util.Results[self.ends])
        return self.ends


class RetryFirst(buildstep.BuildStep):
    """The first builds of a task end RETRY, the next one SUCCESS."""

    def __init__(self, times, **kwargs):
        super().__init__(**kwargs)
        self.times = times

    def run(self):
        marker = os.path.join(markers, 'retry-' + str(self.getProperty('taskId')))
        before = int(open(marker).read()) if os.path.exists(marker) else 0
        with open(marker, 'w') as f:
            f.write(str(before + 1))
        return defer.succeed(util.RETRY if before < self.times else util.SUCCESS)


class QuickWorker(worker.Worker):
    """Kept from work for a moment only after an EXCEPTION, not for 10 seconds and twice as long each time."""
    quarantine_timeout = quarantine_initial_timeout = quarantine_max_timeout = 0.5


def shell(text, **kwargs):
    return steps.ShellCommand(command=['sh', '-c', text], logEnviron=False, **kwargs)


# Says in one file that it runs, and waits for another that the test makes, though not for ever.
wait = steps.ShellCommand(
    name='wait',
    command=['sh', '-c', util.Interpolate(
        'echo waiting | tee -a "%s/started-%%(prop:taskId)s"; for i in $(seq 1200); do '
        'test -e "%s/finish-%%(prop:taskId)s" && echo told && exit 0; sleep 0.1; done; exit 1' % (markers, markers))],
    logEnviron=False)

FACTORIES = {
    'success': [shell('echo hello', name='hello'), shell('echo done', name='done'),
                steps.SetProperty(property='artifact_url', value='http://example.com/build.zip')],
    'warnings': [shell('echo a warning; exit 1', name='warn', warnOnFailure=True, flunkOnFailure=False)],
    'failure': [shell('echo broken; exit 1', name='fail')],
    'exception': [Ends(util.EXCEPTION, name='raise')],
    'retry-once': [RetryFirst(1, name='retry'), shell('echo built', name='build')],
    'retry-always': [RetryFirst(3, name='retry'), shell('echo built', name='build')],
    'slow': [wait],
    'slow-2': [wait],
    'noworker': [shell('true')],
    'quick-1': [shell('echo quick', name='quick')],
    'quick-2': [shell('echo quick', name='quick')],
    'quick-3': [shell('echo quick', name='quick')],
    'release-x': [shell('echo release', name='release')],
    'outside': [shell('true')],
    'large-log': [shell('seq 1 700000', name='large')],
    # Of the demo's release promotion.
    'release-linux64-build': [shell('echo checking out', name='checkout'), shell('sleep 1; echo built', name='build')],
    'release-win64-build': [RetryFirst(1, name='checkout'), shell('sleep 1; echo built', name='build')],
    'release-macosx64-build': [shell('true')],
    'release-linux64-repack': [shell('sleep 1; echo repacked', name='repack')],
    'release-source': [wait],
    'release-android-build': [shell('true')],
    'unicode': [shell("printf 'Gr\\303\\274\\303\\237e \\360\\237\\216\\211\\n'", name='unicode')],
}

# Their only worker never connects, so that requests stay pending.
NO_WORKER = {'noworker', 'release-macosx64-build', 'release-android-build'}

c = BuildmasterConfig = {
    'workers': [QuickWorker('w1', 'worker-pass', max_builds=10, keepalive_interval=2),
                worker.Worker('w2', 'worker-pass')],
    'protocols': {'pb': {'port': 'tcp:%d:interface=127.0.0.1' % settings['pb']}},
    'db': {'db_url': 'sqlite:///state.sqlite'},
    'buildbotURL': 'http://127.0.0.1:%d/' % settings['web'],
    'buildbotNetUsageData': None,
    'change_source': [],
    # What a repository's hook tells of: `POST /change_hook/base`.
    'www': {'port': 'tcp:%d:interface=127.0.0.1' % settings['web'], 'plugins': {},
            'change_hook_dialects': {'base': True}},
    'builders': [
        util.BuilderConfig(name=name, workernames=['w2' if name in NO_WORKER else 'w1'],
                           factory=util.BuildFactory(factory))
        for name, factory in FACTORIES.items()
    ],
    'schedulers': [
        schedulers.ForceScheduler(
            name='bridge',
            builderNames=[name for name in FACTORIES if name != 'outside'],
            properties=[
                util.StringParameter(name='taskId', default=''),
                util.StringParameter(name='product', default=''),
                util.StringParameter(name='locale', default=''),
                util.IntParameter(name='number', default=0),
                util.BooleanParameter(name='flag', default=False),
                util.AnyPropertyParameter(name='p1'),
                util.AnyPropertyParameter(name='p2'),
                util.AnyPropertyParameter(name='p3'),
            ]),
        schedulers.ForceScheduler(name='no-task-id', builderNames=['success', 'outside']),
    ],
}
if not settings['collapse']:
    c['collapseRequests'] = False
if settings.get('auth'):
    username, password = settings['auth']['username'], settings['auth']['password']
    c['www']['auth'] = util.UserPasswordAuth({username: password})
    c['www']['authz'] = util.Authz(
        allowRules=[util.AnyControlEndpointMatcher(role='admins')],
        roleMatchers=[util.RolesFromUsername(roles=['admins'], usernames=[username])])
