/*
 * A host program that looks at itself before and after a login: what did the module leave changed, and is the
 * code still somewhere in memory?
 *
 *     host FOLDER SERVICE USER [keep] [close]
 *
 * Says, a line each, `code N`, `changed WHAT` for every part of the process's state that is not as it was, and
 * `found N` copies of the answer in writable memory. `keep` leaves a copy on purpose; `close` closes the three
 * standard descriptors before the login. The report goes to descriptor 9.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <locale.h>
#include <malloc.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <syslog.h>
#include <unistd.h>

extern char **environ;
static int closed;

enum { REPORT = 9, CODE_LENGTH = 48, CODE_TAIL = 24, TEXT = 65536, MAP_MAX = 1 << 28 /* beyond are a sanitizer's own maps */ };

/* The answer, masked, so that looking for it does not make the copy that is found. */
static const unsigned char mask = 0x5a;
static unsigned char masked[CODE_LENGTH];
volatile char kept[CODE_LENGTH];

struct state {
    char fds[TEXT], environment[TEXT], folder[4096], locale[256], name[16], user[256], rhost[256];
    mode_t umask;
    uid_t uid[3];
    gid_t gid[3], groups[256];
    int group_count, dumpable;
    char blocked[NSIG];
    struct {
        void (*handler)(int);
        int flags;
        char mask[NSIG];
    } actions[NSIG];
    struct itimerval timer;
    struct rlimit limits[RLIM_NLIMITS];
};

static void list_fds(char *text)
{
    DIR *folder = opendir("/proc/self/fd");
    size_t used = 0;
    struct dirent *entry;

    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        char target[512];
        ssize_t length;

        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(folder))
            continue;
        length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target);
        used += (size_t)snprintf(text + used, TEXT - used, "%s=%.*s\n", entry->d_name, (int)length, target);
    }
    closedir(folder);
}

static void list_signals(const sigset_t *set, char members[NSIG])
{
    for (int number = 1; number < NSIG; number++)
        members[number] = sigismember(set, number) == 1;
}

static void copy_item(const pam_handle_t *pamh, int type, char text[256])
{
    const void *item = NULL;

    if (pam_get_item(pamh, type, &item) != PAM_SUCCESS)
        abort();
    snprintf(text, 256, "%s", item == NULL ? "none" : (const char *)item);
}

static void look(struct state *state, const pam_handle_t *pamh)
{
    sigset_t blocked;
    size_t used = 0;

    memset(state, 0, sizeof *state);
    list_fds(state->fds);
    for (char **variable = environ; *variable != NULL; variable++)
        used += (size_t)snprintf(state->environment + used, TEXT - used, "%s\n", *variable);
    if (getcwd(state->folder, sizeof state->folder) == NULL)
        abort();
    snprintf(state->locale, sizeof state->locale, "%s", setlocale(LC_ALL, NULL));
    copy_item(pamh, PAM_USER, state->user);
    copy_item(pamh, PAM_RHOST, state->rhost);
    prctl(PR_GET_NAME, state->name);
    state->dumpable = prctl(PR_GET_DUMPABLE);
    state->umask = umask(0);
    umask(state->umask);
    getresuid(&state->uid[0], &state->uid[1], &state->uid[2]);
    getresgid(&state->gid[0], &state->gid[1], &state->gid[2]);
    state->group_count = getgroups(256, state->groups);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    list_signals(&blocked, state->blocked);
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;

        if (sigaction(number, NULL, &action) != 0)
            continue;
        state->actions[number].handler = action.sa_handler;
        state->actions[number].flags = action.sa_flags;
        list_signals(&action.sa_mask, state->actions[number].mask);
    }
    getitimer(ITIMER_REAL, &state->timer);
    for (int limit = 0; limit < (int)RLIM_NLIMITS; limit++)
        getrlimit(limit, &state->limits[limit]);
}

static void compare(const struct state *before, const struct state *after)
{
#define COMPARE(field)                                                    \
    if (memcmp(&before->field, &after->field, sizeof before->field) != 0) \
    dprintf(REPORT, "changed " #field "\n")
    COMPARE(fds);
    COMPARE(environment);
    COMPARE(folder);
    COMPARE(locale);
    COMPARE(name);
    COMPARE(user);
    COMPARE(rhost);
    COMPARE(dumpable);
    COMPARE(umask);
    COMPARE(uid);
    COMPARE(gid);
    COMPARE(groups);
    COMPARE(group_count);
    COMPARE(blocked);
    COMPARE(actions);
    COMPARE(timer);
    COMPARE(limits);
}

static int matches(const volatile unsigned char *at)
{
    for (int i = CODE_TAIL; i < CODE_LENGTH; i++)
        if ((at[i] ^ mask) != masked[i])
            return 0;
    return 1;
}

/* Copies of the answer's tail (free() writes over the start of what it frees) in every map that is readable and writable: heap, stacks, data of all libraries. */
static int count_copies(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    static struct {
        uintptr_t start, end;
    } found[4096];
    int count = 0, copies = 0;
    char line[4352];

    while (maps != NULL && count < 4096 && fgets(line, sizeof line, maps) != NULL) {
        char permissions[5];

        if (sscanf(line, "%lx-%lx %4s", &found[count].start, &found[count].end, permissions) == 3 &&
            strncmp(permissions, "rw", 2) == 0 && found[count].end - found[count].start <= MAP_MAX && strstr(line, "[vvar") == NULL)
            count++;
    }
    fclose(maps);
    for (int i = 0; i < count; i++)
        for (uintptr_t at = found[i].start; at + CODE_LENGTH <= found[i].end; at++)
            copies += matches((const volatile unsigned char *)at);
    return copies;
}

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
    struct pam_response *answers = calloc((size_t)count, sizeof *answers);
    int *keep = data;

    for (int fd = 0; fd <= 2; fd++)
        if (closed && fcntl(fd, F_GETFD) != -1)
            dprintf(REPORT, "changed standard descriptor\n");
    for (int i = 0; i < count; i++) {
        volatile char *answer;

        if (messages[i]->msg_style != PAM_PROMPT_ECHO_OFF && messages[i]->msg_style != PAM_PROMPT_ECHO_ON)
            continue;
        answer = calloc(1, CODE_LENGTH + 1);
        for (int byte = 0; byte < CODE_LENGTH; byte++)
            answer[byte] = (char)(masked[byte] ^ mask);
        answers[i].resp = (char *)answer;
        for (int byte = 0; *keep && byte < CODE_LENGTH; byte++)
            kept[byte] = answer[byte];
    }
    *responses = answers;
    return PAM_SUCCESS;
}

static void ignore_signal(int number)
{
    (void)number;
}

int main(int argc, char **argv)
{
    static struct state before, after;
    int keep = 0, code, account, copies;
    struct pam_conv conversation = {converse, &keep};
    pam_handle_t *pamh = NULL;
    sigset_t blocked;

    for (int i = 4; i < argc; i++) {
        keep |= strcmp(argv[i], "keep") == 0;
        closed |= strcmp(argv[i], "close") == 0;
    }
    for (int i = 0; i < CODE_LENGTH; i++)
        masked[i] = (unsigned char)("AbCd"[i % 4] + i % 11) ^ mask;
    mallopt(M_MMAP_THRESHOLD, 1 << 25); /* so that freed memory stays to be searched */
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
    openlog("the-host", LOG_PERROR | LOG_PID, LOG_DAEMON);
    umask(0123);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGUSR1, ignore_signal);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    if (pam_start_confdir(argv[2], argv[3], &conversation, argv[1], &pamh) != PAM_SUCCESS)
        return 2;
    if (closed)
        for (int fd = 0; fd <= 2; fd++)
            close(fd);

    look(&before, pamh);
    code = pam_authenticate(pamh, 0);
    copies = count_copies(); /* before anything else takes the memory that was freed */
    account = pam_acct_mgmt(pamh, 0);
    look(&after, pamh);
    dprintf(REPORT, "code %d\naccount %d\nfound %d\n", code, account, copies);
    compare(&before, &after);
    syslog(LOG_NOTICE, "still here");
    return pam_end(pamh, code) == PAM_SUCCESS ? 0 : 2;
}
